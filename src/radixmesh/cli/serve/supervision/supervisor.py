"""All units of a mesh: the order in which they start and end.

The end, in seconds after SIGTERM or Ctrl-C:

    0.0   SIGTERM to the gateways: no new requests, running streams get `plan.GATEWAY_DRAIN` to finish
    1.8   SIGTERM to everyone else (sooner, if the gateways have ended)
    3.2   SIGKILL to whoever is left
    3.6   SIGKILL to the NATS server, which is told to end last
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from radixmesh.cli.serve.children.prefork import Preforked
from radixmesh.cli.serve.display.terminal import Terminal
from radixmesh.cli.serve.planning.plan import ProcessSpec, UnitSpec
from radixmesh.cli.serve.supervision import nats_server, state
from radixmesh.cli.serve.supervision.monitor import MeshMonitor
from radixmesh.cli.serve.supervision.nats_server import NatsServer
from radixmesh.cli.serve.supervision.unit import HopelessError, Unit, UnitContext
from radixmesh.shared.config import ENV_PREFIX, ServiceSettings
from radixmesh.shared.errors import BusError

log = logging.getLogger(__name__)

GATEWAYS_END = 1.8
ALL_END = 3.2
NATS_ENDS = 3.6
NATS_START = 15.0
"""Seconds a private NATS server may take to tell its port."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a supervisor leaves what others may look at."""

    log_dir: Path
    state_file: Path
    facts: Mapping[str, Any]
    """Put into the state file beside what the supervisor knows."""


class Supervisor:
    """Starts what the plan says, keeps it running, and ends it."""

    def __init__(
        self,
        units: Sequence[UnitSpec],
        settings: ServiceSettings,
        nats: NatsServer | None,
        terminal: Terminal,
        places: Places,
        preforked: Preforked,
        *,
        show_logs: bool = False,
    ) -> None:
        """
        Args:
            preforked: children that were forked in advance, for the units' first start.
            settings: the way to the bus; URL and token are replaced by those of `nats`, if that is given.
            nats: the private server, or None for an external one.
        """
        self.mesh: MeshMonitor
        self.ready = False
        self.stopping = asyncio.Event()
        self._specs = list(units)
        self._settings = settings
        self._nats = nats
        self._terminal = terminal
        self._places = places
        self._shown = logging.DEBUG if show_logs else logging.WARNING
        self._hurry = False
        self._tasks: dict[asyncio.Task[None], Unit] = {}
        self._context = UnitContext(
            log_dir=places.log_dir,
            environ=dict(os.environ),
            show=self._show,
            say=terminal.say,
            changed=self.save_state,
            died=self._died,
            up_for=self._up_for,
            preforked=preforked.take,
        )

    # -- the start --

    async def start(self) -> None:
        """Brings up the bus, then starts every unit.

        Raises:
            HopelessError: the private NATS server does not start.
            BusError: the external one is not there, or refuses us.
            ConfigError: there is no nats-server binary.
        """
        if self._nats is not None:
            self._add(self._nats.unit())
            await self._nats_told_its_port(self._nats)
        self._context.environ["RADIXMESH_NATS_URL"] = self._settings.nats_url
        self.mesh = await MeshMonitor.connect(
            self._settings,
            [process.instance for spec in self._specs for process in spec.processes],
            self._terminal.say,
        )
        for spec in self._specs:
            self._add(spec)

    def _add(self, spec: UnitSpec) -> None:
        unit = Unit(spec, self._context)
        self._tasks[asyncio.create_task(unit.run(), name=spec.name)] = unit

    async def _nats_told_its_port(self, nats: NatsServer) -> None:
        deadline = time.monotonic() + NATS_START
        while not nats.learn_port():
            self._raise_failures()
            if time.monotonic() > deadline:
                raise HopelessError(f"nats-server did not start within {NATS_START:g} s")
            await asyncio.sleep(0.02)
        private = {"nats_url": nats.url, "nats_token": SecretStr(nats.token)}
        others = dict.fromkeys(name for name in ServiceSettings.model_fields if name.startswith("nats_"))
        self._settings = self._settings.model_copy(update={**others, **private})
        for name in others:
            self._context.environ.pop(f"{ENV_PREFIX}{name.upper()}", None)
        # The children find the token in their environment: on a command line everybody could read it.
        self._context.environ[f"{ENV_PREFIX}NATS_TOKEN"] = nats.token

    # -- while it runs --

    async def watch(self) -> None:
        """Never returns. Raises what ends a unit for good: HopelessError, OSError."""
        while True:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._raise_failures()
            await self.stopping.wait()

    def stop(self) -> None:
        """Asks for the orderly end; a second call makes it a quick one."""
        self._hurry = self.stopping.is_set()
        self.stopping.set()
        if self._hurry:
            self._signal(list(self._tasks), signal.SIGKILL)

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _died(self, spec: ProcessSpec) -> None:
        if spec.service == nats_server.SERVICE:
            return
        try:
            await self.mesh.tell_gone(spec)
        except BusError as error:
            log.warning("cannot tell the mesh that %s is gone: %s", spec.instance, error)

    def _up_for(self, spec: ProcessSpec, age: float) -> float | None:
        if spec.service == nats_server.SERVICE:
            return age if age > 1 else None
        return self.mesh.up_for(spec.instance)

    def _show(self, process: str, level: int, line: str) -> bool:
        # While everybody leaves, warnings about those who have left mean nothing.
        quiet = self.stopping.is_set() and self._shown == logging.WARNING
        if level < (logging.ERROR if quiet else self._shown):
            return False
        self._terminal.say(f"{process} | {line}")
        return True

    def save_state(self) -> None:
        """Writes the state file; a disk that refuses is told in the log, and no reason to end."""
        token = self._settings.nats_token
        values = {
            "pid": os.getpid(),
            "ready": self.ready,
            "nats_url": self._settings.nats_url,
            "nats_token": token.get_secret_value() if token else None,
            "namespace": self._settings.namespace,
            "log_dir": str(self._places.log_dir),
            **self._places.facts,
            "processes": [
                {"service": item.spec.service, "instance": item.spec.instance, "pid": item.process.pid}
                for unit in self._tasks.values()
                for item in unit.running
            ],
        }
        try:
            state.write(self._places.state_file, values)
        except OSError as error:
            log.warning("cannot write %s: %s", self._places.state_file, error)

    # -- the end --

    async def end(self) -> None:
        """Ends every process. Takes less than five seconds, and leaves none."""
        began = time.monotonic()
        self.stopping.set()
        nats = [task for task, unit in self._tasks.items() if unit.spec.service == nats_server.SERVICE]
        gateways = [task for task, unit in self._tasks.items() if unit.spec.service == "gateway"]
        others = [task for task in self._tasks if task not in nats]
        for tasks, limit in ((gateways, GATEWAYS_END), (others, ALL_END)):
            self._signal(tasks, signal.SIGTERM)
            await self._gone(tasks, began + limit)
        self._signal(others, signal.SIGKILL)
        await self._gone(others, began + ALL_END + 0.2)
        if hasattr(self, "mesh"):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.mesh.close(), 0.2)
        self._signal(nats, signal.SIGTERM)
        await self._gone(nats, began + NATS_ENDS)
        self._signal(nats, signal.SIGKILL)
        await self._gone(nats, began + NATS_ENDS + 0.2)
        if self._nats is not None:
            self._nats.close()
        with contextlib.suppress(OSError):  # a disk that has become read-only
            self._places.state_file.unlink(missing_ok=True)

    def _signal(self, tasks: Sequence["asyncio.Task[None]"], signum: signal.Signals) -> None:
        for task in tasks:
            self._tasks[task].stop(signal.SIGKILL if self._hurry else signum)

    @staticmethod
    async def _gone(tasks: Sequence["asyncio.Task[None]"], deadline: float) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))

"""One `radixmesh serve` from its start to its end."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from radixmesh.cli.serve.children.prefork import Preforked
from radixmesh.cli.serve.display.progress import Progress
from radixmesh.cli.serve.display.terminal import Banner, Terminal
from radixmesh.cli.serve.host import machine
from radixmesh.cli.serve.planning.options import GRPC_OFF, Options
from radixmesh.cli.serve.planning.plan import ServedModel, UnitSpec, gateway_ports
from radixmesh.cli.serve.ready import until_ready
from radixmesh.cli.serve.supervision import state
from radixmesh.cli.serve.supervision.nats_server import NatsServer
from radixmesh.cli.serve.supervision.supervisor import Places, Supervisor
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import RadixMeshError


class Session:
    """Starts the mesh, tells people when it serves, and ends it."""

    def __init__(
        self,
        options: Options,
        model: ServedModel,
        units: Sequence[UnitSpec],
        log_dir: Path,
        preforked: Preforked,
        began: float,
    ) -> None:
        """
        Args:
            units: all that is to run but for the NATS server.
            preforked: children that were forked in advance.
            began: when the command was given, on `time.monotonic`.

        Raises:
            ConfigError: flags contradict each other.
        """
        self._options = options
        self._began = began
        self._ports = gateway_ports(options)
        self._model = model
        host = machine.connect_host(options.host)
        name = f"[{host}]" if ":" in host else host
        self._urls = [f"http://{name}:{http}" for http, _ in self._ports]
        self._grpc = [f"{name}:{grpc}" for _, grpc in self._ports if grpc != GRPC_OFF]
        self._log_dir = log_dir
        self._terminal = Terminal()
        self._units = units
        facts = {"model": model.name, "urls": self._urls, "grpc": self._grpc}
        self._supervisor = Supervisor(
            self._units,
            _bus_settings(options),
            None if options.nats_url else NatsServer(),
            self._terminal,
            Places(log_dir, options.state_file or log_dir / state.FILE, facts),
            preforked,
            show_logs=options.show_logs,
        )

    def stop(self) -> None:
        """Begins the orderly end; a second call makes it a quick one."""
        again = self._supervisor.stopping.is_set()
        self._terminal.no_bar()
        self._terminal.say("stopping at once ..." if again else "stopping ...")
        self._supervisor.stop()

    async def run(self) -> int:
        """0 after `stop`, 1 if the mesh could not be started or kept up."""
        work = asyncio.create_task(self._work())
        stopping = asyncio.create_task(self._supervisor.stopping.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except (RadixMeshError, OSError) as error:
            self._terminal.no_bar()
            self._terminal.say(f"radixmesh serve: {error}\nThe logs are in {self._log_dir}")
            return 1
        finally:
            work.cancel()
            stopping.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)
            self._terminal.no_bar()
            await self._supervisor.end()
        return 0

    async def _work(self) -> None:
        await self._supervisor.start()
        announcement = asyncio.create_task(self._announce())
        try:
            await asyncio.gather(self._supervisor.watch(), announcement)
        finally:
            announcement.cancel()

    async def _announce(self) -> None:
        workers = [spec.processes[0].instance for spec in self._units if spec.service == "model_worker"]
        progress = Progress(self._terminal, self._supervisor.mesh.members, workers)
        try:
            await until_ready(machine.connect_host(self._options.host), self._ports[0][0])
        finally:
            progress.close()
        self._supervisor.ready = True
        self._supervisor.save_state()
        Terminal(sys.stdout).say(str(self._banner()))

    def _banner(self) -> Banner:
        members = self._supervisor.mesh.members.ready("tokenizer")
        return Banner(
            model=self._model.name,
            urls=self._urls,
            grpc=self._grpc,
            chat=any(member.attributes.get("chat_template") for member in members),
            api_key=bool(self._options.api_key),
            key_in_shell=self._options.api_key == os.environ.get("RADIXMESH_API_KEY"),
            logs=self._log_dir,
            seconds=time.monotonic() - self._began,
        )


def _bus_settings(options: Options) -> ServiceSettings:
    """The way to the bus: credentials from the environment, the rest from the flags. Raises ConfigError."""
    flags = ["--namespace", options.namespace]
    return ServiceSettings.load(flags + (["--nats-url", options.nats_url] if options.nats_url else []))

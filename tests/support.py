"""Helpers that every test may use."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.config import ServiceSettings

A = TypeVar("A", bound=Actor)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """A private nats-server that tests can stop and start again on the same port."""

    def __init__(self, *flags: str) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = Path(sys.executable).parent / "nats-server"
        self._process = subprocess.Popen(
            [binary, "-a", "127.0.0.1", "-p", str(self.port), *self._flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("nats-server did not start")

    @property
    def pid(self) -> int:
        """Raises AssertionError if it does not run."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits for `condition` to hold."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  conditions may be about anything
            await asyncio.sleep(0.01)


@asynccontextmanager
async def starter(
    settings: ServiceSettings, model: Path, make: Callable[[dict[str, Any]], A]
) -> AsyncIterator[Callable[..., Awaitable[A]]]:
    """Gives a function that starts an actor on the test's bus: `(instance, **settings)`. All end with the block."""
    tasks: list[tuple[A, asyncio.Task[None]]] = []

    async def begin(instance: str, **changes: Any) -> A:
        base = settings.model_dump(include={"nats_url", "namespace", "heartbeat_interval", "log_format"})
        unit = make({**base, "model": str(model), "instance": instance, **changes})
        tasks.append((unit, asyncio.create_task(unit.run())))
        return unit

    yield begin
    for unit, task in tasks:
        unit.stop()
        await asyncio.gather(task, return_exceptions=True)

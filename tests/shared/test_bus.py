"""What the connection promises: a flush and the end of a subscription speak for all that went before, and a reconnect
is told to everyone."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import BusError
from radixmesh.shared.messages import WhoIsThere
from tests.support import until

INFO = b'INFO {"server_id":"scripted","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}\r\n'


class Wire:
    """A server that only answers PINGs, and keeps the operations that it got, by their first word."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self._writer: asyncio.StreamWriter

    def hang_up(self) -> None:
        """Ends the latest connection."""
        self._writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.write(INFO)
        while line := await reader.readline():
            operation = line.split()[0].decode()
            self.operations.append(operation)
            if operation == "PUB":
                await reader.readexactly(int(line.split()[-1]) + 2)
            if operation == "PING":
                writer.write(b"PONG\r\n")
        writer.close()


@pytest.fixture
async def wire() -> AsyncIterator[tuple[Wire, Bus]]:
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = await Bus.connect(ServiceSettings(nats_url=f"nats://127.0.0.1:{port}"), "client")
    wire.operations.clear()
    yield wire, bus
    await bus.close()
    server.close()
    await server.wait_closed()


async def test_a_flush_comes_after_what_it_is_to_wait_for(wire: tuple[Wire, Bus]) -> None:
    server, bus = wire
    await bus.subscribe("a", lambda _: None)
    for _ in range(3):
        await bus.publish("a", WhoIsThere())
    await bus.flush()
    assert server.operations == ["SUB", "PUB", "PUB", "PUB", "PING"]


async def test_a_subscription_has_ended_when_it_is_drained(wire: tuple[Wire, Bus]) -> None:
    server, bus = wire
    subscription = await bus.subscribe("a", lambda _: None, queue="workers")
    await until(lambda: server.operations)
    await subscription.drain()  # type: ignore[no-untyped-call]
    assert server.operations == ["SUB", "UNSUB", "PING"]


@pytest.mark.parametrize("error", [BusError("the server went away again"), ValueError("a fault"), OSError("a file")])
async def test_whoever_waits_for_a_reconnect_is_told_though_another_fails(
    wire: tuple[Wire, Bus], error: Exception
) -> None:
    server, bus = wire
    told = 0

    async def fails() -> None:
        raise error

    async def counts() -> None:
        nonlocal told
        told += 1

    bus.on_reconnect += [fails, counts]
    for times in (1, 2):
        server.hang_up()
        await until(lambda times=times: told == times)
    assert bus.connected
    assert server.operations.count("CONNECT") == 2

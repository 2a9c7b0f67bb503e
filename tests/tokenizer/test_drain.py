"""A tokenizer that is told to end: every request that came to it is answered, whatever the timing."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from radixmesh.services.tokenizer.service import Tokenizer
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import RequestFailed, Routed, State
from tests.support import until
from tests.tokenizer.conftest import Start
from tests.tokenizer.scripted import Mesh, rid

LONG = "the quick brown fox " * 500
"""Long enough to be encoded on a thread."""
PING = b"PING\r\n"
SPACIOUS = {"max_model_len": 10**5, "vocab_size": 401}


class SlowLink:
    """A relay to the bus that holds back for a moment what a client sends behind a PING."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.held = asyncio.Event()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, to = await asyncio.open_connection(self._target.hostname, self._target.port)
        for work in (self._forward(reader, to, PING), self._forward(back, writer, b"")):
            self._tasks.add(asyncio.create_task(work))

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, hold_after: bytes) -> None:
        try:
            while data := await source.read(1 << 16):
                if hold_after and hold_after in data:
                    head, _, data = data.partition(hold_after)
                    sink.write(head + hold_after)
                    self.held.set()
                    await asyncio.sleep(0.3)
                sink.write(data)
        finally:
            sink.close()

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def link(nats_url: str) -> AsyncIterator[tuple[SlowLink, str]]:
    link = SlowLink(nats_url)
    yield link, await link.start()
    await link.stop()


async def spacious(mesh: Mesh, unit: Tokenizer) -> None:
    """Makes room for long prompts."""
    for name in ("a", "b"):
        await mesh.beat("scheduler", name, attributes=SPACIOUS)
    await until(lambda: unit.presence_attributes()["max_model_len"] == SPACIOUS["max_model_len"])


async def test_drain_sends_on_what_it_has(mesh: Mesh, serving: Tokenizer) -> None:
    await spacious(mesh, serving)
    for number in range(20):
        await mesh.submit(rid(number), text=LONG)
    await mesh.bus.flush()
    serving.stop()
    await until(lambda: mesh.presence["t1"].state is State.GONE)
    for number in range(20):
        assert isinstance(await mesh.answer(rid(number)), Routed)


async def test_no_request_falls_between_two_tokenizers(
    mesh: Mesh, link: tuple[SlowLink, str], serving: Tokenizer, start: Start
) -> None:
    """Requests come all the while; the server hears late, over a slow link, that one tokenizer takes no more."""
    relay, url = link
    leaving = await start("t2", nats_url=url)
    await mesh.ready("t2")
    for beat in mesh.members.values():
        await mesh.bus.publish(mesh.subjects.presence(beat.service), beat)
    await until(lambda: len(leaving.members.ready("scheduler")) == len(leaving.members.ready("detokenizer")) == 2)
    count = 0
    while mesh.presence["t2"].state is not State.GONE:
        await mesh.submit(rid(count), text="short")
        count += 1
        await asyncio.sleep(0.005)
        if leaving._requests >= 3 and not leaving.draining:
            relay.held.clear()
            leaving.stop()
    assert relay.held.is_set()
    for number in range(count):
        assert isinstance(await mesh.answer(rid(number)), Routed)


async def test_what_a_drain_cannot_finish_goes_elsewhere(
    mesh: Mesh, serving: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are being encoded, some wait for a thread, and more come while it ends: each is told to try again."""
    await spacious(mesh, serving)
    stuck = threading.Event()
    assert serving._encoder is not None
    original = serving._encoder.encode

    def encode(*args: Any) -> Any:
        stuck.wait(30)
        return original(*args)

    monkeypatch.setattr(serving._encoder, "encode", encode)
    monkeypatch.setattr(serving, "_settings", serving._settings.model_copy(update={"drain_timeout": 0.0}))
    try:
        for number in range(5):
            await mesh.submit(rid(number), text=LONG)
        await until(lambda: serving._pending == 5)
        serving.stop()
        for number in range(5):
            failed = await mesh.refusal(rid(number))
            assert isinstance(failed, RequestFailed)
            assert failed.code is ErrorCode.NOT_READY
        await until(lambda: mesh.presence["t1"].state is State.GONE)
    finally:
        stuck.set()

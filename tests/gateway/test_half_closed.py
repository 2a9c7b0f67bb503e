"""Clients that close their sending side after the request, and wait; and those that look the same and have gone."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from radixmesh.services.gateway.faces.http import connection
from radixmesh.services.gateway.service import Gateway
from tests.gateway.ring import MODEL, Ring, words

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def post(prompt: str, *, version: str = "1.1", length: int | None = None, **fields: Any) -> bytes:
    body = json.dumps({"model": MODEL, "prompt": prompt, **fields}).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.http_url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()


async def asked_and_half_closed(gateway: Gateway, request: bytes) -> bytes:
    """All that comes until the gateway closes, too."""
    async with connected(gateway) as (reader, writer):
        writer.write(request)
        writer.write_eof()
        return await reader.read()


def said(answer: bytes) -> str:
    """The text of an answer, streamed or not, as a reader without an HTTP library finds it."""
    lines = [line[line.index("{") :] for line in answer.decode().splitlines() if "{" in line]
    return "".join(choice["text"] for line in lines for choice in json.loads(line)["choices"])


@pytest.fixture
def early_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROBE_AFTER", 0.2)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_half_closed_client_gets_its_whole_answer(gateway: Gateway, stream: bool, version: str) -> None:
    answer = await asked_and_half_closed(gateway, post("echo:300", max_tokens=300, stream=stream, version=version))
    assert answer.startswith(b"HTTP/1.")
    assert b" 200 OK\r\n" in answer.splitlines(keepends=True)[0]
    assert said(answer) == words(300)
    assert (b"[DONE]" in answer) == stream


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_nobody_looks_at_a_connection_that_is_closed(gateway: Gateway, version: str) -> None:
    """uvloop tells the end of input anew whenever reading is resumed, as it is behind a body."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    await asked_and_half_closed(gateway, post("echo:2", version=version))
    await asyncio.sleep(0.4)  # some looks
    assert failures == []


async def test_no_probe_comes_before_its_time(gateway: Gateway, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PROBE_AFTER", 1.0)
    async with connected(gateway) as (reader, writer):
        writer.write(post("held:0"))
        writer.write_eof()
        ended = asyncio.get_running_loop().time()
        await reader.readuntil(b" 100 Continue\r\n\r\n")
        assert asyncio.get_running_loop().time() - ended > 0.9
        ring.release.set()
        assert said(await reader.read()) == words(2)


async def test_every_pipelined_request_is_answered(gateway: Gateway) -> None:
    requests = (
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + post("echo:2") + post("echo:3", stream=True) + post("echo:4")
    )
    answer = await asked_and_half_closed(gateway, requests)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b"[DONE]") == 1
    assert answer.count(b'finish_reason": "stop') == 3


async def test_one_that_reads_late_gets_all_that_it_asked_for(gateway: Gateway) -> None:
    """While an answer waits for its reader, no request is in work."""
    long = post(f"echo:1 {'x' * 100_000}", echo=True, n=80)
    async with connected(gateway) as (reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        writer.write(long + long + post("echo:3"))
        writer.write_eof()
        await asyncio.sleep(2.0)  # the first answer fills the kernel's buffers, and many looks go by
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert len(answer) > 16_000_000


async def test_refusals_reach_a_half_closed_client(gateway: Gateway) -> None:
    assert b" 400 " in await asked_and_half_closed(gateway, post(""))
    assert b" 404 " in await asked_and_half_closed(gateway, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 400 " in await asked_and_half_closed(gateway, b"nonsense\r\n\r\n")
    assert b" 504 " in await asked_and_half_closed(gateway, post("silence:1", timeout=0.3))


@pytest.mark.usefixtures("early_probes")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [0, 2])
async def test_one_that_waits_long_is_probed_and_served(gateway: Gateway, ring: Ring, stream: bool, begun: int) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(post(f"held:{begun}", stream=stream))
        writer.write_eof()
        commented = stream and begun
        before = await reader.readuntil(b":\n\n" if commented else b"HTTP/1.1 100 Continue\r\n\r\n")
        before += await reader.readuntil(b":\n\n" if commented else b"HTTP/1.1 100 Continue\r\n\r\n")
        ring.release.set()
        answer = before + await reader.read()
    assert said(answer) == words(begun + 2)
    assert answer.count(b" 200 OK") == 1
    assert ring.cancels == []


@pytest.mark.usefixtures("early_probes")
@pytest.mark.parametrize("how", ["closed", "half-closed before", "reset"])
@pytest.mark.parametrize(("stream", "begun"), [(False, 2), (True, 0), (True, 2)])
async def test_one_that_has_gone_is_noticed(gateway: Gateway, ring: Ring, how: str, stream: bool, begun: int) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(post(f"silence:{begun}", stream=stream))
        await ring.until(lambda: len(ring.submits) == 1)
        if stream and begun:
            await reader.readuntil(b"data: ")
        if how == "half-closed before":
            writer.write_eof()
            await reader.readuntil(b":\n\n" if stream and begun else b" 100 Continue\r\n\r\n")
            assert ring.cancels == []
        if how == "reset":
            linger_not = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
            writer.transport.abort()
        writer.close()
        await ring.until(lambda: len(ring.cancels) == 1)
    assert len(gateway.submitter.table) == 0


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/completions HT", post("echo:1", length=9999), b"GET /health HTTP/1.1\r\nHost: x\r\n"]
)
async def test_no_whole_request_ends_the_connection(gateway: Gateway, ring: Ring, sent: bytes) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
    assert ring.submits == []

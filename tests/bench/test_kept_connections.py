"""Servers may close a connection that they kept, at any moment: a load client then sends its request again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from radixmesh.bench.session import measure
from radixmesh.bench.settings import Settings

pytestmark = pytest.mark.processes

CHUNKS = (
    {"choices": [{"text": "x", "finish_reason": None}]},
    {"choices": [{"text": "", "finish_reason": "length"}]},
    {"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 1}},
)
EVENTS = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in CHUNKS) + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"


class Forgetful:
    """An HTTP server that answers so many requests on a connection and says of none that it will be the last.

    Args:
        closing: what becomes of the next one: `idle`: the connection is closed before it comes; `unread`: as it comes;
            `reset`: the same, by a reset; `cut`: after half of the answer.
    """

    def __init__(self, answers: int, closing: str) -> None:
        self.answers = answers
        self.closing = closing
        self.connections = 0
        self.posts = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.answers):
            if not await self._request(reader):
                break
            writer.write(HEAD % len(EVENTS) + EVENTS)
            await writer.drain()
        else:
            if self.closing != "idle" and await self._request(reader):
                if self.closing == "cut":
                    writer.write(HEAD % len(EVENTS) + EVENTS[: len(EVENTS) // 2])
                elif self.closing == "reset":
                    writer.transport.abort()
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> bool:
        """Reads one; False at the end of the connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        self.posts += head.startswith(b"POST")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields.get(b"Content-Length", 0)))
        return True


@asynccontextmanager
async def forgetful(answers: int, closing: str) -> AsyncIterator[Forgetful]:
    server = Forgetful(answers, closing)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server


def settings(url: str, concurrency: int) -> Settings:
    return Settings(
        url=url, model="m", requests=12, concurrency=concurrency, input_len=(8, 8), output_len=(1, 1), warmup=0
    )


@pytest.mark.parametrize("closing", ["idle", "unread", "reset"])
@pytest.mark.parametrize(("answers", "concurrency"), [(1, 1), (2, 1), (3, 4)])
async def test_a_kept_connection_that_was_closed_is_no_failed_request(
    closing: str, answers: int, concurrency: int
) -> None:
    async with forgetful(answers, closing) as server:
        (run,) = [run async for run in measure(settings(server.url, concurrency), asyncio.Event(), lambda load: None)]
    assert (run.summary.completed, run.summary.failed, run.summary.errors) == (12, 0, {})
    assert server.connections >= 12 / answers


@pytest.mark.parametrize("closing", ["unread", "reset"])
async def test_a_fresh_connection_that_is_closed_is_one(closing: str) -> None:
    async with forgetful(0, closing) as server:
        (run,) = [run async for run in measure(settings(server.url, 1), asyncio.Event(), lambda load: None)]
    assert (run.summary.completed, run.summary.failed) == (0, 12)
    assert server.posts == 12  # each once


async def test_an_answer_that_is_cut_is_not_asked_for_again() -> None:
    async with forgetful(1, "cut") as server:
        (run,) = [run async for run in measure(settings(server.url, 1), asyncio.Event(), lambda load: None)]
    assert run.summary.failed > 0
    assert run.summary.completed + run.summary.failed == 12

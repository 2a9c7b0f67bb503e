"""Carries answers from the desk to HTTP clients, as server-sent events or in one piece."""

import asyncio
import json
from collections.abc import Sequence

from aiohttp import HttpVersion11, web

from radixmesh.services.gateway.errors import error_body
from radixmesh.services.gateway.faces.http.connection import Connection
from radixmesh.services.gateway.faces.openai.answer import DONE, Answer, Job, on_the_wire
from radixmesh.services.gateway.requests.request import LiveRequest
from radixmesh.services.gateway.requests.submission import Desk
from radixmesh.shared.errors import RequestError

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What clients expect any number of before an answer, and wait on; the one interim status that all of them know."""
_COMMENT = b":\n\n"
"""What clients skip in an event stream."""


async def answer(request: web.Request, job: Job, desk: Desk) -> web.StreamResponse:
    """Runs a job to its end. However this returns or is cancelled, nothing of the job runs on.

    Raises:
        RequestError: the job failed before anything was sent.
    """
    client = _Client(request)
    lives = desk.open(job.prompts, client.wake, streaming=job.stream, headers=request.headers, timeout=job.timeout)
    client.lives = lives
    try:
        return await (_stream(client, job, desk.client_timeout) if job.stream else _whole(client, job))
    finally:
        desk.close(lives)


class _Client:
    """One waiting client, and what it waits for."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.lives: Sequence[LiveRequest] = ()
        self._news = asyncio.Event()
        self._writing = False
        self._begun = False
        self._probing = False
        if (connection := Connection.of(request)) is not None:
            connection.probe = self._probe

    def wake(self) -> None:
        self._news.set()
        if self._writing and self.error is not None and self.request.transport is not None:
            self.request.transport.abort()  # it does not read: no word of ours would reach it

    async def news(self) -> None:
        """Waits until `wake` was called since the last call."""
        await self._news.wait()
        self._news.clear()

    @property
    def error(self) -> RequestError | None:
        return next((live.error for live in self.lives if live.error is not None), None)

    @property
    def ended(self) -> bool:
        return all(live.ended for live in self.lives)

    def _probe(self) -> None:
        """See `Connection`. HTTP/1.0 has no interim answers: until there is a token, such a client is believed."""
        if self._begun:
            self._probing = True
            self._news.set()
        elif self.request.version >= HttpVersion11 and self.request.transport is not None:
            self.request.transport.write(_INTERIM)

    def probed(self, data: bytes) -> bytes:
        """`data`, or if there is none and a probe is due, that."""
        probing, self._probing = self._probing, False
        return data or (_COMMENT if probing else b"")

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Writes, and lets the table see for how long the client has not read."""
        self._writing = self._begun = True
        now = Desk.now()
        for live in self.lives:
            live.blocked_since = now
        await response.write(data)
        self._writing = False
        for live in self.lives:
            live.blocked_since = None

    async def finish(self, response: web.StreamResponse, data: bytes, timeout: float) -> None:
        """Writes the end, when no table watches the client any more; hangs up on one that does not read it."""
        self._begun = True
        try:
            async with asyncio.timeout(timeout):
                await response.write(data)
                await response.write_eof()
        except TimeoutError:
            if self.request.transport is not None:
                self.request.transport.abort()


async def _whole(client: _Client, job: Job) -> web.Response:
    while not client.ended and client.error is None:
        await client.news()
    if client.error is not None:
        raise client.error
    reply = Answer(job, client.lives)
    body = on_the_wire(json.dumps(reply.whole(), ensure_ascii=False))
    return web.Response(body=body, content_type="application/json", headers={"X-Request-Id": reply.id})


async def _stream(client: _Client, job: Job, client_timeout: float) -> web.StreamResponse:
    await client.news()
    reply = Answer(job, client.lives)  # by now, the model that was meant is known
    response = web.StreamResponse(headers={**STREAM_HEADERS, "X-Request-Id": reply.id})
    while True:
        error, ended = client.error, client.ended
        chunks = [reply.chunk(prompt, delta) for prompt, live in enumerate(client.lives) for delta in live.take()]
        data = client.probed(on_the_wire("".join(chunks)))
        if error is not None and not data and not response.prepared:
            raise error
        if not response.prepared and (data or ended):
            await response.prepare(client.request)
        if error is not None or ended:
            break
        if data:
            await client.write(response, data)
        await client.news()
    end = reply.end().encode() + DONE if error is None else b"data: " + error_body(error) + b"\n\n"
    await client.finish(response, data + end, client_timeout)
    return response

"""Carries answers to HTTP clients, as streams or in one piece."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import HttpVersion11, web

from radixmesh.services.gateway.faces.http.body import read_body
from radixmesh.services.gateway.faces.http.connection import Connection
from radixmesh.services.gateway.faces.http.endpoint import Handler
from radixmesh.services.gateway.faces.http.job import Job
from radixmesh.services.gateway.requests.request import Request
from radixmesh.services.gateway.requests.submission import Submitter
from radixmesh.shared.errors import RequestError

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What clients expect any number of before an answer, and wait on; the one interim status that all of them know."""
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""JSON may hold these as they are, but clients that split events at Unicode's line ends would cut it there."""


def runs(read: Callable[[dict[str, Any]], Job], submitter: Submitter) -> Handler:
    """The handler of an endpoint at which text is generated.

    Args:
        read: what a body asks for. Raises RequestError.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        job = await read_body(request, read, submitter.client_timeout)
        return await answer(request, job, submitter)

    return handle


async def answer(asked: web.Request, job: Job, submitter: Submitter) -> web.StreamResponse:
    """Runs a job to its end. However this returns or is cancelled, nothing of the job runs on.

    Raises:
        RequestError: the job failed before anything was sent.
    """
    client = _Client(asked)
    requests = submitter.open(
        job.prompts, client.wake, streaming=job.stream, headers=asked.headers, timeout=job.timeout
    )
    client.requests = requests
    try:
        return await (_stream(client, job, submitter.client_timeout) if job.stream else _whole(client, job))
    finally:
        submitter.close(requests)


def on_the_wire(text: str) -> bytes:
    """JSON, or events of it, as UTF-8 with no line end inside a string, whatever a client takes for one."""
    return (text if text.isascii() else text.translate(_LINE_ENDS)).encode()


class _Client:
    """One waiting client, and what it waits for."""

    def __init__(self, asked: web.Request) -> None:
        self.asked = asked
        self.requests: Sequence[Request] = ()
        self._news = asyncio.Event()
        self._writing = False
        self._begun = False
        self._probing = False
        if (connection := Connection.of(asked)) is not None:
            connection.probe = self._probe

    def wake(self) -> None:
        self._news.set()
        if self._writing and self.error is not None and self.asked.transport is not None:
            self.asked.transport.abort()  # it does not read: no word of ours would reach it

    async def news(self) -> None:
        """Waits until `wake` was called since the last call."""
        await self._news.wait()
        self._news.clear()

    @property
    def error(self) -> RequestError | None:
        return next((request.error for request in self.requests if request.error is not None), None)

    @property
    def ended(self) -> bool:
        return all(request.ended for request in self.requests)

    def _probe(self) -> None:
        """See `Connection`. HTTP/1.0 has no interim answers: until there is a token, such a client is believed."""
        if self._begun:
            self._probing = True
            self._news.set()
        elif self.asked.version >= HttpVersion11 and self.asked.transport is not None:
            self.asked.transport.write(_INTERIM)

    def probed(self, data: bytes, filler: bytes) -> bytes:
        """`data`, or if there is none and a probe is due, `filler`."""
        probing, self._probing = self._probing, False
        return data or (filler if probing else b"")

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Writes, and lets the table see for how long the client has not read."""
        self._writing = self._begun = True
        now = Submitter.now()
        for request in self.requests:
            request.blocked_since = now
        await response.write(data)
        self._writing = False
        for request in self.requests:
            request.blocked_since = None

    async def finish(self, response: web.StreamResponse, data: bytes, timeout: float) -> None:
        """Writes the end, when no table watches the client any more; hangs up on one that does not read it."""
        self._begun = True
        try:
            async with asyncio.timeout(timeout):
                await response.write(data)
                await response.write_eof()
        except TimeoutError:
            if self.asked.transport is not None:
                self.asked.transport.abort()


async def _whole(client: _Client, job: Job) -> web.Response:
    while not client.ended and client.error is None:
        await client.news()
    if client.error is not None:
        raise client.error
    reply = job.answer(client.requests)
    body = on_the_wire(json.dumps(reply.whole(), ensure_ascii=False))
    return web.Response(body=body, content_type="application/json", headers={"X-Request-Id": reply.id})


async def _stream(client: _Client, job: Job, client_timeout: float) -> web.StreamResponse:
    await client.news()
    reply = job.answer(client.requests)  # by now, the model that was meant is known
    headers = {"Content-Type": job.framing.media_type, **STREAM_HEADERS, "X-Request-Id": reply.id}
    response = web.StreamResponse(headers=headers)
    while True:
        error, ended = client.error, client.ended
        chunks = [reply.chunk(i, delta) for i, request in enumerate(client.requests) for delta in request.take()]
        data = client.probed(on_the_wire("".join(chunks)), job.framing.filler)
        if error is not None and not data and not response.prepared:
            raise error
        if not response.prepared and (data or ended):
            await response.prepare(client.asked)
        if error is not None or ended:
            break
        if data:
            await client.write(response, data)
        await client.news()
    last = reply.end() if error is None else reply.failed(error)
    await client.finish(response, data + on_the_wire(last), client_timeout)
    return response

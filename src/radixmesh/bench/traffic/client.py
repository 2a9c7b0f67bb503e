"""One request: send it, read its stream, keep its time stamps.

The client shares the machine with the server. So a read of the socket costs it one look at the clock, one
split into lines and one `json.loads` per event; all arithmetic waits for the end of the run.
"""

import json
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import aiohttp

from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.traffic.stream import DONE, SseParser, StreamError, Usage, error_text, read_chunk
from radixmesh.bench.traffic.workload import Job


@dataclass(slots=True)
class Record:
    """What happened to one request. Times are seconds on perf_counter's clock."""

    index: int
    job: Job
    started: float
    """When it was sent, or was due: a client that sends late under --request-rate does not hide the delay."""
    arrivals: list[float] = field(default_factory=list)
    """The reads of the socket that brought output. Events that one read brings are one arrival."""
    events: int = 0
    """Chunks that carried output."""
    first_events: int = 0
    """Those of the first arrival: at least so many tokens came with it."""
    first_usage: int = 0
    """Output tokens by the usage that came with the first arrival; 0 when there was none."""
    last: float = 0.0
    """The last chunk of the answer, whether it carried output or only the finish reason."""
    usage: Usage | None = None
    finish_reason: str | None = None
    ended: float | None = None
    """The end of the stream, or of the attempt; None: cancelled."""
    error: str | None = None


class RequestFailed(Exception):
    """Its text is the error that the record keeps."""


@dataclass(slots=True)
class _Attempt:
    """One sending of a request."""

    reused: bool = False
    """It went out on a connection that had served another request before."""


async def _on_reuse(_session: aiohttp.ClientSession, context: Any, _params: object) -> None:
    if isinstance(context.trace_request_ctx, _Attempt):
        context.trace_request_ctx.reused = True


def open_session(settings: Settings) -> aiohttp.ClientSession:
    """Connections are kept for 3 s only: servers commonly close idle ones after 5 s; `_post` sees to the others."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3, ttl_dns_cache=None)
    timeout = aiohttp.ClientTimeout(total=settings.timeout, connect=None)
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_on_reuse)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=settings.headers,
        auto_decompress=False,
        trace_configs=[trace],
    )


@dataclass(frozen=True, slots=True)
class Served:
    """A model as the server's /v1/models lists it."""

    name: str
    vocab_size: int | None
    """Token ids are below it; None: the server does not say."""


async def find_model(session: aiohttp.ClientSession, url: str, name: str | None) -> Served:
    """The model of that name, or the first of /v1/models.

    Raises:
        BenchError: no name was given, and there is no list to take one from. With a name a server needs no list.
    """
    try:
        async with session.get(f"{url}/v1/models", timeout=aiohttp.ClientTimeout(total=30)) as response:
            await _check_status(response)
            listed = (await response.json(content_type=None))["data"]
            entry = next((entry for entry in listed if entry["id"] == name), {}) if name else listed[0]
            return Served(name or str(entry["id"]), _vocab_size(entry))
    except (aiohttp.ClientError, OSError, RequestFailed) as error:
        problem = f"{url}/v1/models: {describe(error)}"
    except (ValueError, LookupError, TypeError):
        problem = f"{url}/v1/models lists no model; name one with --model"
    if name is None:
        raise BenchError(problem)
    return Served(name, None)


def _vocab_size(entry: dict[str, Any]) -> int | None:
    """A field of our gateway's; other servers do not have it."""
    size = entry.get("vocab_size")
    return size if isinstance(size, int) and size > 1 else None


async def send(session: aiohttp.ClientSession, url: str, record: Record) -> None:
    """Fills `record`; failures end up in its `error`. Only a cancellation passes through."""
    try:
        async with await _post(session, url, record.job.body) as response:
            await _check_status(response)
            if response.content_type != "text/event-stream":
                raise RequestFailed(f"the answer is {response.content_type}, not text/event-stream")
            await _read(response.content, record)
    except (aiohttp.ClientError, OSError, RequestFailed, StreamError) as error:
        record.error = describe(error)
    if record.ended is None:
        record.ended = perf_counter()


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> aiohttp.ClientResponse:
    """The head of the answer.

    A server may close a connection that it kept, at any moment, also while a request is on its way there (RFC 9112,
    section 9.3.1). That is no failure of the request: it goes out again, at the latest on a connection of its own.
    """
    while True:
        attempt = _Attempt()
        try:
            return await session.post(url, data=body, trace_request_ctx=attempt)
        except aiohttp.ServerTimeoutError:
            raise
        except aiohttp.ClientConnectionError:
            if not attempt.reused:
                raise


async def _read(content: aiohttp.StreamReader, record: Record) -> None:
    """To the end of the body, so that the connection can be used again."""
    parser = SseParser()
    while data := await content.readany():
        now = perf_counter()
        before = record.events
        for payload in parser.feed(data):
            if payload == DONE:
                record.ended = now
                continue
            chunk = read_chunk(payload)
            record.events += chunk.output
            record.last = now if chunk.choice else record.last
            record.usage = chunk.usage or record.usage
            record.finish_reason = chunk.finish_reason or record.finish_reason
        if record.events > before:
            record.arrivals.append(now)
            if not before:
                record.first_events = record.events
                record.first_usage = record.usage.output_tokens if record.usage else 0
    if record.ended is None and record.finish_reason is None:
        raise RequestFailed("the stream ended without a finish reason or [DONE]")
    if not record.arrivals:
        raise RequestFailed("the stream ended without any output")


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    text = (await response.content.read(4096)).decode(errors="replace")
    try:
        reason = error_text(json.loads(text))
    except ValueError:
        reason = error_text(text)
    hint = " (see --vocab-size)" if response.status == 400 and "vocabulary" in reason.lower() else ""
    raise RequestFailed(f"HTTP {response.status}: {reason or response.reason}{hint}")


def describe(error: Exception) -> str:
    """One line, without the object addresses and per-request details that would keep equal errors apart."""
    if isinstance(error, TimeoutError):
        return "no complete answer within the time limit"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.strerror or error.os_error}"
    return error_text(str(error)) or type(error).__name__

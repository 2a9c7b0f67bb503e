"""The gateway's HTTP face: OpenAI's API, and what operators want to see."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from radixmesh import __version__
from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.errors import FACES, error_body, error_object, invalid, retry_after, unknown_model
from radixmesh.services.gateway.faces.http.connection import Connection
from radixmesh.services.gateway.faces.http.cors import Cors, origins
from radixmesh.services.gateway.faces.http.streams import answer
from radixmesh.services.gateway.faces.keys import key_matches
from radixmesh.services.gateway.faces.openai.answer import Job
from radixmesh.services.gateway.faces.openai.chat import chat_job
from radixmesh.services.gateway.faces.openai.completions import completion_job
from radixmesh.services.gateway.faces.operators.caches import Replicas, when_idle
from radixmesh.services.gateway.fields.prompt import parse_object
from radixmesh.services.gateway.requests.metrics import CONTENT_TYPE, Metrics
from radixmesh.services.gateway.requests.submission import Desk
from radixmesh.shared import telemetry
from radixmesh.shared.errors import ErrorCode, RequestError

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ping", "/ready", "/metrics"})
"""Served without an API key: for probes and scrapers."""

_BIG_BODY = 1 << 17
"""Bytes from which a body is parsed beside the event loop, so that streams go on meanwhile."""

_MAX_REQUEST_ID = 256
"""Characters of a client's own X-Request-Id, which it gets back."""

_CLIENT_GONE = 499
"""The status that is counted for a client which does not wait for its answer."""

_FLUSH_WAIT = "1"
"""Seconds that a flush waits for running requests: what has just ended may hold its pages still."""
_MAX_FLUSH_WAIT = 600.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ready = Callable[[], dict[str, str]]
Flush = Callable[[], Awaitable[Replicas]]


class HttpFace:
    """The aiohttp application over a desk.

    Args:
        flush: flushes all prefix caches and says what came of it, by replica.
        not_ready: by model, what keeps requests from being served; empty if some would be.
    """

    def __init__(self, desk: Desk, metrics: Metrics, not_ready: Ready, flush: Flush, settings: GatewaySettings) -> None:
        self._desk = desk
        self._flush = flush
        self._metrics = metrics
        self._not_ready = not_ready
        self._key = settings.api_key.get_secret_value().encode() if settings.api_key else b""
        self._cors = Cors(origins(settings.cors_origins))
        self._max_body = settings.max_body_bytes
        self.app = web.Application(client_max_size=self._max_body, middlewares=[self._around])
        self.app.on_response_prepare.append(self._mark)
        self.app.add_routes(
            [
                web.get("/", self._hint),
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.get("/version", self._version),
                web.get("/ready", self._ready),
                web.get("/metrics", self._scrape),
                web.get("/mesh", self._mesh),
                web.get("/v1/mesh", self._mesh),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{id:.+}", self._model),
                web.get("/flush_cache", self._flush_cache),
                web.post("/flush_cache", self._flush_cache),
                web.post("/reset_prefix_cache", self._flush_cache),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
            ]
        )

    # -- around every request --

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Checks the key, counts the request, and gives every error OpenAI's shape."""
        connection = Connection.of(request)
        with (
            telemetry.current(telemetry.context_from(request.headers)),
            connection.serving(request) if connection is not None else nullcontext(),
        ):
            return await self._answered(request, handler)

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        try:
            response = self._cors.preflight(request)
            if response is None:
                self._check_key(request)
                response = await handler(request)
        except RequestError as error:
            response = _error_response(error)
            log.info("%s %s: %d %s", request.method, request.path, response.status, error.code.value)
        except web.HTTPException as error:
            response = self._protocol_error(request, error)
        except ConnectionError:
            response = web.Response(status=_CLIENT_GONE)  # nobody will read it
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = _error_response(RequestError(ErrorCode.INTERNAL, "the gateway failed on this request"))
        finally:
            resource = request.match_info.route.resource
            endpoint = resource.canonical if resource is not None else "other"
            status = _CLIENT_GONE if response is None else response.status
            self._metrics.requests.labels(endpoint, str(status)).inc()
        return response

    def _check_key(self, request: web.Request) -> None:
        if not self._key or request.path in OPEN_PATHS:
            return
        if not key_matches(request.headers, self._key):
            raise RequestError(
                ErrorCode.UNAUTHENTICATED, "a valid API key is needed: send it as 'Authorization: Bearer KEY'"
            )

    async def _mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Headers of every answer, just before they go out."""
        self._cors.mark(request, response)
        given = request.headers.get("X-Request-Id", "")
        if 0 < len(given) <= _MAX_REQUEST_ID and given.isascii() and given.isprintable():
            response.headers["X-Request-Id"] = given

    def _protocol_error(self, request: web.Request, error: web.HTTPException) -> web.Response:
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            text = f"the body is over the limit of {self._max_body} bytes"
            return _error_response(RequestError(ErrorCode.REQUEST_TOO_LARGE, text))
        texts = {
            404: f"there is no {request.path[:200]}",
            405: f"{request.path[:200]} does not take {request.method[:20]}",
        }
        headers = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
        return _error_response(invalid(texts.get(error.status, error.reason)), error.status, headers)

    # -- text --

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await answer(request, await self._job(request, completion_job), self._desk)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await answer(request, await self._job(request, chat_job), self._desk)

    async def _job(self, request: web.Request, read: Callable[[dict[str, Any]], Job]) -> Job:
        if request.content_type != "application/json":
            text = f"the body must be application/json, not {request.content_type[:80]!r}: set Content-Type"
            raise _ProtocolError(415, text)
        # A small body may inflate to any size.
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _ProtocolError(415, "the body must not be compressed: leave out Content-Encoding")
        if request.content_length is not None and request.content_length > self._max_body:
            raise web.HTTPRequestEntityTooLarge(self._max_body, request.content_length)
        try:
            async with asyncio.timeout(self._desk.client_timeout):
                raw = await request.read()
        except TimeoutError:
            text = f"the body did not come within {self._desk.client_timeout:g} s"
            raise _ProtocolError(408, text) from None
        if len(raw) < _BIG_BODY:
            return read(parse_object(raw))
        return await asyncio.to_thread(lambda: read(parse_object(raw)))

    # -- models and mesh --

    async def _models(self, _request: web.Request) -> web.Response:
        names = self._desk.mesh.models()
        return web.json_response({"object": "list", "data": [self._describe(name) for name in names]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self._desk.mesh.models():
            raise unknown_model(name)
        return web.json_response(self._describe(name))

    def _describe(self, name: str) -> dict[str, Any]:
        mesh = self._desk.mesh
        return {
            "id": name,
            "object": "model",
            "created": mesh.created(name),
            "owned_by": "radixmesh",
            "root": name,
            "parent": None,
            "max_model_len": mesh.attribute(name, "max_model_len") or None,
            "vocab_size": mesh.attribute(name, "vocab_size") or None,
        }

    async def _mesh(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self._desk.mesh.describe()}, dumps=_dump_any)

    # -- for operators --

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, _request: web.Request) -> web.Response:
        missing = self._not_ready()
        if missing:
            body = {"status": "not ready", "missing": missing}
            return web.json_response(body, status=503, headers={"Retry-After": "1"})
        served = [name for name in self._desk.mesh.models() if not self._desk.mesh.missing(name)]
        return web.json_response({"status": "ready", "models": served})

    async def _scrape(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": __version__})

    async def _flush_cache(self, request: web.Request) -> web.Response:
        """400 if requests still hold pages when `timeout` is over."""
        replicas = await when_idle(self._flush, _seconds(request.query.get("timeout", _FLUSH_WAIT)))
        body: dict[str, Any] = {"replicas": replicas}
        if not replicas or any("error" in replica for replica in replicas):
            return web.json_response(body, status=502)
        if any(replica["pages_in_use"] for replica in replicas):
            body |= error_object(invalid("running requests hold pages of the cache; all others are flushed"))
            return web.json_response(body, status=400)
        return web.json_response(body)

    async def _hint(self, _request: web.Request) -> web.Response:
        routes = [f"{route.method} {route.resource.canonical}" for route in self.app.router.routes() if route.resource]
        served = sorted({route for route in routes if not route.startswith("HEAD")})
        return web.json_response({"name": "radixmesh gateway", "endpoints": served})


class _ClientFaults(logging.Filter):
    """Bytes that are no HTTP are their sender's fault: worth one line, not aiohttp's traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        log.info("a client sent no HTTP: %s", ascii(str(error))[:200])
        return False


SERVER_LOG = logging.getLogger(f"{__name__}.server")
"""aiohttp's own, for what happens outside of handlers."""
SERVER_LOG.addFilter(_ClientFaults())


class _ProtocolError(RequestError):
    """Has a status of its own, but no code of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, message)
        self.status = status


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_FLUSH_WAIT:
        raise invalid(f"timeout: must be a number of seconds from 0 to {_MAX_FLUSH_WAIT:g}", "timeout")
    return value


def _error_response(
    error: RequestError, status: int | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    if status is None:
        status = error.status if isinstance(error, _ProtocolError) else FACES[error.code].http
    extra = {**(headers or {}), **retry_after(error)}
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return web.Response(status=status, body=error_body(error, status), content_type="application/json", headers=extra)


def _dump_any(value: object) -> str:
    """Presence attributes are plain values, but of any service's making."""
    return json.dumps(value, default=str)

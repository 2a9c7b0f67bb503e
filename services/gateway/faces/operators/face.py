"""What operators, probes and scrapers want of a gateway."""

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from radixmesh import __version__
from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.faces.http.endpoint import Endpoint
from radixmesh.services.gateway.faces.http.errors import error_object
from radixmesh.services.gateway.faces.operators.caches import Replicas, when_idle
from radixmesh.services.gateway.requests.mesh import MeshView
from radixmesh.services.gateway.requests.metrics import CONTENT_TYPE, Metrics

Ready = Callable[[], dict[str, str]]
Flush = Callable[[], Awaitable[Replicas]]

_FLUSH_WAIT = "1"
"""Seconds that a flush waits for running requests: what has just ended may hold its pages still."""
_MAX_FLUSH_WAIT = 600.0


def endpoints(mesh: MeshView, metrics: Metrics, not_ready: Ready, flush: Flush) -> list[Endpoint]:
    """All of this face.

    Args:
        not_ready: by model, what keeps requests from being served; empty if some would be.
        flush: flushes all prefix caches and says what came of it, by replica.
    """
    at = _Operators(mesh, metrics, not_ready, flush)
    return [
        Endpoint("GET", "/health", at.health, open=True),
        Endpoint("GET", "/ping", at.health, open=True),
        Endpoint("GET", "/ready", at.ready, open=True),
        Endpoint("GET", "/metrics", at.scrape, open=True),
        Endpoint("GET", "/version", at.version),
        Endpoint("GET", "/mesh", at.members),
        Endpoint("GET", "/v1/mesh", at.members),
        Endpoint("GET", "/flush_cache", at.flush_cache),
        Endpoint("POST", "/flush_cache", at.flush_cache),
        Endpoint("POST", "/reset_prefix_cache", at.flush_cache),
    ]


class _Operators:
    """The handlers."""

    def __init__(self, mesh: MeshView, metrics: Metrics, not_ready: Ready, flush: Flush) -> None:
        self._mesh = mesh
        self._metrics = metrics
        self._not_ready = not_ready
        self._flush = flush

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(self, _request: web.Request) -> web.Response:
        missing = self._not_ready()
        if missing:
            body = {"status": "not ready", "missing": missing}
            return web.json_response(body, status=503, headers={"Retry-After": "1"})
        served = [name for name in self._mesh.models() if not self._mesh.missing(name)]
        return web.json_response({"status": "ready", "models": served})

    async def scrape(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": __version__})

    async def members(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": self._mesh.describe()}, dumps=_dump_any)

    async def flush_cache(self, request: web.Request) -> web.Response:
        """400 if requests still hold pages when `timeout` is over."""
        replicas = await when_idle(self._flush, _seconds(request.query.get("timeout", _FLUSH_WAIT)))
        body: dict[str, Any] = {"replicas": replicas}
        if not replicas or any("error" in replica for replica in replicas):
            return web.json_response(body, status=502)
        if any(replica["pages_in_use"] for replica in replicas):
            body |= error_object(invalid("running requests hold pages of the cache; all others are flushed"), 400)
            return web.json_response(body, status=400)
        return web.json_response(body)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= _MAX_FLUSH_WAIT:
        raise invalid(f"timeout: must be a number of seconds from 0 to {_MAX_FLUSH_WAIT:g}", "timeout")
    return value


def _dump_any(value: object) -> str:
    """Presence attributes are plain values, but of any service's making."""
    return json.dumps(value, default=str)

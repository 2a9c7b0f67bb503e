"""Which web pages may call: the CORS protocol of the Fetch standard.

Credentials are never allowed: a page that calls brings the API key, a browser has none of its own to add.
"""

from aiohttp import web

from radixmesh.services.gateway.config import Origins

_EXPOSED = "X-Request-Id, Retry-After"
_MAX_AGE = "600"
"""Seconds for which a browser need not ask again."""


class Cors:
    """Answers preflights and marks answers.

    Args:
        allowed: whose pages may call.
    """

    def __init__(self, allowed: Origins) -> None:
        self._origins = allowed

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks whether a page may send a request; None for anything else."""
        method = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or method is None or not self._allowed(request):
            return None
        headers = {"Access-Control-Allow-Methods": method, "Access-Control-Max-Age": _MAX_AGE}
        if wanted := request.headers.get("Access-Control-Request-Headers"):
            headers["Access-Control-Allow-Headers"] = wanted
        return web.Response(status=204, headers=headers)

    def mark(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Tells a browser that the page which sent `request` may read `response`."""
        if "*" not in self._origins and self._origins:
            response.headers.add("Vary", "Origin")
        if allowed := self._allowed(request):
            response.headers["Access-Control-Allow-Origin"] = allowed
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    def _allowed(self, request: web.BaseRequest) -> str:
        """What to allow: all origins, the one that asks, or nothing (empty)."""
        origin = request.headers.get("Origin", "")
        if not origin or "*" in self._origins:
            return "*" if origin else ""
        return origin if origin in self._origins else ""

"""One address of the HTTP server. A face is a list of these."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from radixmesh.services.gateway.faces.http.errors import ErrorForm, error_object

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint(NamedTuple):
    """A method and a path, and who answers. What `handler` raises is written by `error_form`."""

    method: str
    path: str
    """As aiohttp spells patterns."""
    handler: Handler
    open: bool = False
    """The path is served without an API key: for probes and scrapers."""
    error_form: ErrorForm = error_object

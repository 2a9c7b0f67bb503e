"""The HTTP server: an application at an address."""

import asyncio
import logging
from typing import cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from radixmesh.services.gateway.faces.http.connection import Connection
from radixmesh.shared.errors import RadixMeshError

log = logging.getLogger(__name__)

_BACKLOG = 128
"""Connections that the kernel keeps until they are accepted."""


class HttpServer:
    """Serves an application. `start` it once."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._runner = web.AppRunner(
            app, access_log=None, logger=_SERVER_LOG, handler_cancellation=True, shutdown_timeout=0.5
        )
        self._listener: asyncio.Server | None = None

    async def start(self) -> str:
        """Gives the URL. Raises RadixMeshError if the address cannot be had."""
        await self._runner.setup()
        server = cast("web.Server", self._runner.server)  # None only before setup
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(server()), self._host, self._port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as error:  # the latter: a part of the name is empty or over 63 characters
            raise RadixMeshError(f"cannot listen on {self._host}:{self._port}: {error}") from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._listener.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()


class _ClientFaults(logging.Filter):
    """Bytes that are no HTTP are their sender's fault: worth one line, not aiohttp's traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        log.info("a client sent no HTTP: %s", ascii(str(error))[:200])
        return False


_SERVER_LOG = logging.getLogger(f"{__name__}.server")
"""aiohttp's own, for what happens outside of handlers."""
_SERVER_LOG.addFilter(_ClientFaults())

"""A client's connection: HTTP's protocol with another idea of what the end of input means.

A client may close its sending side once its request is out (`nc -N`, a socket's `shutdown(SHUT_WR)`) and wait for the
answer. The kernel sends the same FIN for that and for a client that has gone; only what is written afterwards tells
them apart, because the host of one that has gone answers with RST. So from the end of input on we look, every `_LOOK`
seconds, until the connection is closed:

    an error on the socket (RST came)       ──▶ abort, which cancels the request
    a request whose body is cut short       ──▶ abort
    no request in work, for some looks      ──▶ close: nothing more will be asked
    a request in work, and time for a probe ──▶ whoever answers writes something that changes nothing
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from aiohttp import web

_LOOK = 0.1
"""Seconds between two looks at a connection whose input has ended."""
_IDLE_LOOKS = 3
"""Looks without a request in work until the connection counts as done: pipelined requests follow each other closely."""

PROBE_AFTER = 2.5
"""Seconds from the end of input to the first probe; from one probe to the next it takes twice as long as before."""


class Connection(asyncio.Protocol):
    """Hands everything on to aiohttp's protocol, and the end of input to nobody."""

    def __init__(self, handler: web.RequestHandler) -> None:
        self.probe: Callable[[], None] | None = None
        """Set by whoever answers the request in work: writes something that changes nothing."""
        self._handler = handler
        self._transport: asyncio.Transport
        self._request: web.BaseRequest | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_looks = 0
        self._looks = 0
        self._next_probe = round(PROBE_AFTER / _LOOK)

    @classmethod
    def of(cls, request: web.BaseRequest) -> "Connection | None":
        """The connection that `request` came by; None if it is closed."""
        protocol = request.transport.get_protocol() if request.transport is not None else None
        return protocol if isinstance(protocol, cls) else None

    @contextmanager
    def serving(self, request: web.BaseRequest) -> Iterator[None]:
        """While `request` is in work. HTTP/1 answers one after the other."""
        self._request = request
        try:
            yield
        finally:
            self._request = self.probe = None

    # -- asyncio's side --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    def eof_received(self) -> bool:
        """True: the transport stays open for writing. Told anew by uvloop whenever aiohttp goes on reading."""
        if self._timer is None:
            self._look_later()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    # -- after the end of input --

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if self._gone() or (self._request is not None and not self._request.content.is_eof()):
            self._transport.abort()
            return
        busy = self._request is not None or self._transport.get_write_buffer_size() > 0
        self._idle_looks = 0 if busy else self._idle_looks + 1
        if self._idle_looks == _IDLE_LOOKS:
            self._transport.close()
            return
        self._looks += 1
        if self._looks == self._next_probe:
            self._next_probe *= 2
            if self.probe is not None:
                self.probe()
        self._look_later()

    def _gone(self) -> bool:
        """Whether the client's host has answered what we wrote with RST. Nobody else reads the socket's error now."""
        error: int = self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return error != 0

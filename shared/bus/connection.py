"""A connection to NATS that speaks in messages.

Core NATS delivers at most once: what is published during a reconnect, or to a slow consumer, may be lost. The
messages carry what receivers need to notice (sequence numbers, first indexes), and the gateway re-dispatches.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout

from radixmesh.shared.bus.credentials import credentials
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import BusError, PayloadTooLarge, RadixMeshError
from radixmesh.shared.messages import Message, pack, unpack

log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds after which a server that does not answer is worth a line in the log."""

_PING_AT_MOST = 5.0
"""Seconds between two PINGs, at most."""

_GIVEN_UP = 20.0
"""Seconds, about, after which a server that answers no PING is left for another connection, which costs what was on its
way. Until then it counts as not connected, so nobody is taken for dead, and goes on where it was if it wakes up."""

PENDING_BYTES = 64 << 20
"""Outgoing bytes kept while the server is away; publishing beyond them raises `BusError`."""


class _InOrder(Client):
    """A client that can be closed while the server is away, and whose PING goes out behind all that was published,
    subscribed and unsubscribed before it.

    nats-py keeps those until its flusher task runs but writes a PING at once, so the PONG that ends a flush, or the
    draining of a subscription, would say nothing of them: requests could still come to a subscription that has ended.
    """

    @property
    def answers(self) -> bool:
        """Not more than the last of the regular PINGs is without a PONG."""
        return self._pings_outstanding <= 1

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        if self.is_connected and self._pending and self._transport is not None:
            self._transport.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        await super()._send_ping(future)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:  # what is kept for the server would be written to the broken connection, and raise
            self._pending = []
            self._pending_data_size = 0
        await super()._close(status, do_cbs)


class Bus:
    """One NATS connection. Reconnects for ever; publishes during a reconnect are buffered up to a bound."""

    def __init__(self, client: _InOrder) -> None:
        self._client = client
        self._refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._opened = False
        self._closing = False
        self._last_error: Exception | None = None
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    async def connect(cls, settings: ServiceSettings, name: str, *, timeout: float = 30.0) -> "Bus":
        """Connects, trying again for `timeout` seconds, so that services and server may start in any order.

        Raises:
            ConfigError: a file with credentials will not do.
            BusError: no server answered in time, or it refused the credentials.
        """
        shown = credentials(settings)
        bus = cls(_InOrder())
        opening = asyncio.ensure_future(bus._open_at_last(settings, name, shown))
        ends: set[asyncio.Future[Any]] = {opening, bus._refused}
        quiet = min(_PATIENCE, timeout)
        try:
            await asyncio.wait(ends, timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
            if not opening.done() and not bus._refused.done():
                log.warning("waiting for NATS at %s", without_credentials(settings.nats_url))
                await asyncio.wait(ends, timeout=timeout - quiet, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
                return bus
        finally:
            if not bus._opened:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                await bus._client.close()
        why = bus._refused.result() if bus._refused.done() else bus._last_error
        raise BusError(f"cannot connect to {without_credentials(settings.nats_url)}: {why or 'no answer'}")

    async def _open_at_last(self, settings: ServiceSettings, name: str, shown: dict[str, Any]) -> None:
        """A server that refuses us may close the connection before it has said why: then ask again."""
        while True:
            try:
                await self._open(settings, name, shown)
                self._opened = True
                return
            except (OSError, NatsError) as error:
                self._last_error = error
                await asyncio.sleep(0.1)

    async def _open(self, settings: ServiceSettings, name: str, shown: dict[str, Any]) -> None:
        async def on_error(error: Exception) -> None:
            # While the server is away the client tries ten times a second; one line for each outage is enough.
            if str(error) != str(self._last_error):
                log.log(logging.WARNING if self._client.is_connected else logging.DEBUG, "bus: %s", error)
            self._last_error = error
            if "authorization" in str(error).lower() and not self._refused.done():
                self._refused.set_result(error)

        async def on_disconnect() -> None:
            if self._opened and not self._closing:
                log.warning("bus: disconnected from %s", without_credentials(settings.nats_url))

        async def on_reconnect() -> None:
            log.warning("bus: connected again")
            self._last_error = None
            for callback in self.on_reconnect:
                await self._tell_reconnected(callback)

        ping_interval = min(settings.heartbeat_interval, _PING_AT_MOST)
        await self._client.connect(
            servers=settings.nats_url.split(","),
            name=name,
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # any number of seconds works
            connect_timeout=2,
            ping_interval=ping_interval,  # type: ignore[arg-type]  # the same
            max_outstanding_pings=max(2, round(_GIVEN_UP / ping_interval) - 1),
            pending_size=PENDING_BYTES,
            **shown,
        )

    async def _tell_reconnected(self, callback: Callable[[], Awaitable[None]]) -> None:
        """What it raises would end the client's own task, or begin another reconnect, and leave the others untold."""
        try:
            await callback()
        except RadixMeshError as error:  # the server may have gone away again
            log.warning("bus: after the reconnect: %s", error)
        except Exception:
            log.exception("bus: a callback failed after the reconnect")

    @property
    def client(self) -> Client:
        """The nats-py client, for the micro service protocol."""
        return self._client

    @property
    def connected(self) -> bool:
        """There is a server, and it answers: one that hangs is noticed within two heartbeats, while its silence is
        nobody's death yet."""
        return self._client.is_connected and self._client.answers

    @property
    def max_payload(self) -> int:
        """Bytes."""
        return self._client.max_payload

    async def publish(self, subject: str, message: Message, headers: dict[str, str] | None = None) -> None:
        """Publishes once, at most once.

        Raises:
            PayloadTooLarge: the packed message is over the server's limit; nothing was sent.
            BusError: the connection is closed, or too much waits for the server to come back.
        """
        data = self._packed(message, headers)
        try:
            await self._client.publish(subject, data, headers=headers)
        except NatsError as error:
            raise BusError(f"cannot publish {message.TAG}: {error}") from error

    async def request(self, subject: str, message: Message, *, timeout: float) -> Message:
        """Publishes and waits for one answer.

        Raises:
            PayloadTooLarge: the packed message is over the server's limit; nothing was sent.
            BusError: nobody listens there, no answer came within `timeout` seconds, or nothing could be sent.
            MessageError: the answer is malformed.
        """
        data = self._packed(message)
        try:
            answer = await self._client.request(subject, data, timeout=timeout)
        except NoRespondersError as error:
            raise BusError(f"nobody answers {message.TAG} on {subject}") from error
        except NatsTimeout as error:
            raise BusError(f"no answer to {message.TAG} within {timeout:g} s") from error
        except NatsError as error:
            raise BusError(f"cannot publish {message.TAG}: {error}") from error
        return unpack(answer.data)

    def _packed(self, message: Message, headers: dict[str, str] | None = None) -> bytes:
        """The message's bytes, if they and the headers fit: a server ends the connection of whoever sends too much."""
        data = pack(message)
        size = len(data) + _headers_size(headers)
        if size > self.max_payload:
            raise PayloadTooLarge(message.TAG, size, self.max_payload)
        return data

    async def subscribe(self, subject: str, receive: Callable[[Envelope], None], *, queue: str = "") -> Subscription:
        """Hands every message on `subject` to `receive`, which must only enqueue.

        Args:
            queue: queue group; each message goes to one of its members.

        Returns:
            the subscription, for a service that stops listening before it ends.
        """

        async def on_message(message: Msg) -> None:
            receive(Envelope(message.subject, message.data, message.reply, message.headers))

        return await self._client.subscribe(subject, queue=queue, cb=on_message)

    async def flush(self, timeout: float = 2.0) -> None:
        """Waits until the server has what was published. Raises BusError."""
        try:
            await self._client.flush(timeout=timeout)  # type: ignore[arg-type]
        except (NatsError, TimeoutError) as error:
            raise BusError(f"flush: {error!r}") from error

    async def close(self) -> None:
        """Sends what is pending, then closes. Does nothing on a closed connection."""
        self._closing = True
        if self._client.is_connected:
            try:
                await self.flush()
            except BusError as error:
                log.warning("bus: %s", error)
        if not self._client.is_closed:
            await self._client.close()


def _headers_size(headers: dict[str, str] | None) -> int:
    """Bytes of the headers on the wire, ``NATS/1.0`` and line ends counted in; the server's limit is for all of it."""
    if headers is None:
        return 0
    return len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())


def without_credentials(urls: str) -> str:
    """`urls`, one or several with commas between, less the user names and passwords before an @."""
    return re.sub(r"[^/,]*@", "", urls)

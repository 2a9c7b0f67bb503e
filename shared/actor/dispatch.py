"""From the mailbox to a handler, one message after the other."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from radixmesh.shared import telemetry
from radixmesh.shared.actor.mailbox import Lane, Mailbox
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import BusError, MessageError
from radixmesh.shared.messages import Message

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
Handler = Callable[[M, Envelope], Awaitable[None] | None]


class Dispatcher:
    """One handler for each kind of message; what one of them raises is told to `fail`, and stops nothing.

    Args:
        fail: takes the message of a request and the error that has met it.
    """

    def __init__(self, mailbox: Mailbox, fail: Callable[[Message, Exception], Awaitable[None]]) -> None:
        self._mailbox = mailbox
        self._fail = fail
        self._handlers: dict[type[Message], Handler[Any]] = {}

    def on(self, kind: type[M], handler: Handler[M]) -> None:
        """Sets the one handler for messages of `kind`."""
        self._handlers[kind] = handler

    async def run(self) -> None:
        """Never returns."""
        while True:
            envelope, lane = await self._mailbox.get()
            if telemetry.enabled and envelope.headers:
                with telemetry.current(telemetry.context_from(envelope.headers)):
                    await self._handle(envelope)
            else:
                await self._handle(envelope)
            if lane is Lane.REQUESTS:
                await asyncio.sleep(0)  # what is here but not read yet may be control traffic, and goes first

    async def _handle(self, envelope: Envelope) -> None:
        message: Message | None = None
        try:
            message = envelope.unpack()
            handler = self._handlers.get(type(message))
            if handler is None:
                log.warning("nothing here handles %s from %s", message.TAG, envelope.subject)
                return
            result = handler(message, envelope)
            if result is not None:
                await result
        except MessageError as error:
            log.warning("dropped a message on %s: %s", envelope.subject, error)
        except Exception as error:  # noqa: BLE001  one request's failure must not be another's
            await self._failed(message, error)

    async def _failed(self, message: Message | None, error: Exception) -> None:
        if message is None or getattr(message, "request_id", None) is None:
            log.error("handler of %s failed", message.TAG if message else "a message", exc_info=error)
            return
        try:
            await self._fail(message, error)
        except BusError as bus_error:
            log.warning("could not tell of a failed request: %s", bus_error)

"""Where all faces hand in their prompts: the request table, its clock, its traces, and its outgoing mail."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from opentelemetry.trace import SpanKind

from radixmesh.services.gateway.requests.mesh import BUS_AWAY, MeshView
from radixmesh.services.gateway.requests.ports import Limits, Observer
from radixmesh.services.gateway.requests.prompt import Prompt
from radixmesh.services.gateway.requests.request import Request
from radixmesh.services.gateway.requests.table import Outgoing, RequestTable
from radixmesh.shared import telemetry
from radixmesh.shared.errors import BusError, ErrorCode, MessageError, PayloadTooLarge, RequestError
from radixmesh.shared.messages import Cancel, RequestFailed, Submit
from radixmesh.shared.telemetry import Attr

log = logging.getLogger(__name__)

EVERY_ATTEMPT = 2**31 - 1

_CARRIED = sorted(set(Submit.model_fields) & set(Prompt.__dataclass_fields__) - {"model"})
"""What a prompt has for the tokenizer, by one name in both."""

Publish = Callable[[Submit | Cancel, dict[str, str] | None], Awaitable[None]]


class Submitter:
    """One per gateway. All methods but `mail` return at once; what they publish goes out in order.

    Args:
        gateway_id: the name that answers are sent to.
        timeout: seconds that a request may take at most.
        publish: sends one message with the given headers. May raise BusError or MessageError.
    """

    def __init__(
        self, gateway_id: str, timeout: float, limits: Limits, mesh: MeshView, observer: Observer, publish: Publish
    ) -> None:
        self.mesh = mesh
        self.table = RequestTable(limits, mesh, observer)
        self.changed = asyncio.Event()
        """The table's clock must look: something may be due earlier than it was."""
        self.closed = False
        """No new requests: the gateway is about to end."""
        self.client_timeout = limits.client_timeout
        """Seconds that a client may leave its stream unread."""
        self._gateway_id = gateway_id
        self._timeout = timeout
        self._publish = publish
        self._outbox: asyncio.Queue[Submit | Cancel] = asyncio.Queue()

    @staticmethod
    def now() -> float:
        """The table's clock, seconds."""
        return time.monotonic()

    def open(
        self,
        prompts: Sequence[Prompt],
        wake: Callable[[], None],
        *,
        streaming: bool,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> list[Request]:
        """Lets prompts into the ring, all or none. Close what this gives.

        Args:
            wake: called when any of the requests has news.
            headers: the client's, with its trace context.
            timeout: the client's own, seconds.

        Raises:
            RequestError: the gateway is full or ending, or knows no such model.
        """
        if self.closed:
            raise RequestError(ErrorCode.NOT_READY, "this gateway is shutting down", retry_after=1.0)
        limit = self._timeout if timeout is None else max(0.0, min(timeout, self._timeout))
        opened: list[Request] = []
        try:
            for prompt in prompts:
                opened += [self._open(prompt, wake, streaming, headers, limit)]
        except RequestError:
            self.close(opened)
            raise
        return opened

    def close(self, requests: Sequence[Request]) -> None:
        """The client needs no more: cancels what has not ended."""
        for request in requests:
            if not request.ended:
                self.send(self.table.cancel(request.request_id, self.now()))

    def abort(self, request_id: str) -> bool:
        """Ends a request wherever it runs in the mesh. True if it was one of this gateway's."""
        out = self.table.abort(request_id, self.now())
        self.send([Cancel.of((request_id, -1, EVERY_ATTEMPT))] if out is None else out)
        return out is not None

    def send(self, messages: Outgoing) -> None:
        """Puts messages into the outgoing mail."""
        if messages:  # someone has come or goes round again
            self.changed.set()
        for message in messages:
            self._outbox.put_nowait(message)

    async def mail(self) -> None:
        """Sends the outgoing mail for ever. A `Submit` that cannot be sent fails its request, and no other;
        one that the bus does not take now waits."""
        while True:
            message = await self._outbox.get()
            try:
                await self._publish(message, self._headers(message))
            except (BusError, MessageError, ValueError) as error:  # ValueError: msgpack cannot encode a value
                self._not_sent(message, error)
            finally:
                self._outbox.task_done()

    async def flushed(self) -> None:
        """Waits until the outgoing mail has been handed to the bus."""
        await self._outbox.join()

    def _open(
        self,
        prompt: Prompt,
        wake: Callable[[], None],
        streaming: bool,
        headers: Mapping[str, str] | None,
        timeout: float,
    ) -> Request:
        now = self.now()
        submit = Submit(
            request_id=uuid.uuid4().hex,
            gateway_id=self._gateway_id,
            model=self.mesh.named(prompt.model),
            time_left=timeout,
            **{name: getattr(prompt, name) for name in _CARRIED},
        )
        span = telemetry.start_span(telemetry.SPAN_REQUEST, telemetry.context_from(headers), kind=SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes(_attributes(prompt, submit))
        request = Request(submit, now + timeout, wake, chosen=prompt.chosen, streaming=streaming, span=span)
        try:
            self.send(self.table.open(request, now))
        except RequestError as error:
            span.set_attribute(Attr.ERROR, error.code.value)
            span.end()
            raise
        return request

    def _headers(self, message: Submit | Cancel) -> dict[str, str] | None:
        if not telemetry.enabled or isinstance(message, Cancel):
            return None
        request = self.table.get(message.request_id)
        return telemetry.headers_of(request.span) if request is not None else None

    def _not_sent(self, message: Submit | Cancel, error: Exception) -> None:
        if isinstance(message, Cancel):
            log.warning("could not cancel %s: %s", ", ".join(message.request_ids), error)
            return
        if isinstance(error, BusError):
            self.send(self.table.failed(_away(message), self.now()))
            return
        if isinstance(error, PayloadTooLarge):
            text = f"the prompt takes {error.size} bytes on its way, over the limit of {error.limit} bytes"
            failure = RequestError(ErrorCode.REQUEST_TOO_LARGE, text)
        else:
            log.error("request %s cannot be packed: %s", message.request_id, error)
            failure = RequestError(ErrorCode.INVALID_REQUEST, "the request holds a value that cannot be passed on")
        self.send(self.table.fail(message.request_id, failure, self.now()))


def _away(submit: Submit) -> RequestFailed:
    """What becomes of a `Submit` that the bus does not take: it is tried again, as long as its request may wait."""
    return RequestFailed(
        request_id=submit.request_id,
        attempt=submit.attempt,
        code=ErrorCode.NOT_READY,
        message=BUS_AWAY,
    )


def _attributes(prompt: Prompt, submit: Submit) -> dict[str, str | int | float]:
    params = submit.work.params
    known: dict[str, str | int | float] = {
        Attr.OPERATION: prompt.operation,
        Attr.SYSTEM: "radixmesh",
        Attr.MODEL: submit.model,
        Attr.SEED: str(params.seed),  # unsigned 64 bit, which attributes cannot hold
        Attr.CHOICE_COUNT: params.n,
        Attr.REQUEST_ID: submit.request_id,
    }
    if params.max_tokens is not None:
        known[Attr.MAX_TOKENS] = params.max_tokens
    return known

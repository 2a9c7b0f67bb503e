"""The tokenizer on the bus."""

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nats.errors import Error as NatsError
from opentelemetry.trace import Span, SpanKind

from radixmesh.services.tokenizer import encode, limits
from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.dispatch import Dispatch, choices_of, dispatch
from radixmesh.services.tokenizer.generation import sampling_defaults
from radixmesh.services.tokenizer.limits import Limits
from radixmesh.services.tokenizer.routing.router import Route, Router, choose_detokenizer
from radixmesh.shared import telemetry
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.actor.mailbox import Lane
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import BusError, ErrorCode, PayloadTooLarge, RequestError
from radixmesh.shared.messages import Cancel, KvEvents, KvSnapshotRequest, Presence, Submit
from radixmesh.shared.model_files import model_source
from radixmesh.shared.prefix_hash import cache_namespace
from radixmesh.shared.subjects import TOKENIZER_GROUP
from radixmesh.shared.telemetry import Attr

log = logging.getLogger(__name__)

INLINE_BYTES = 2048
"""A request of at most this size is encoded at once: that takes less time than a trip to a thread."""

LAST_WORDS = 1.0
"""Seconds, after the time to drain, in which the requests still here are told to go elsewhere."""


class Tokenizer(Actor):
    """Turns requests into token ids, and chooses the replica and the detokenizer that serve them."""

    service = "tokenizer"
    watches = ("scheduler", "detokenizer")

    def __init__(self, settings: TokenizerSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._encoder: encode.Encoder | None = None
        self._limits = Limits()
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="encode")
        self._pending = 0
        self._pending_bytes = 0
        self._given_up: asyncio.Future[None]
        self._requests = 0
        self._defaults: dict[str, float | int] = {}
        self._router = Router(
            balance_absolute=settings.balance_absolute,
            balance_relative=settings.balance_relative,
            prefix_share=settings.prefix_share,
            expect_seconds=settings.expect_seconds,
        )

    async def setup(self) -> None:
        """Loads the tokenizer, then takes its share of the requests. Raises ModelLoadError."""
        self._given_up = asyncio.get_running_loop().create_future()
        self.members.on_change.append(self._member_changed)
        self.on(Presence, self._heard)
        self.on(KvEvents, self._cache_changed)
        self.on(Submit, self._submitted)
        for member in self.members:
            await self._heard(member, None)
        await self.listen(self.subjects.kv_events)
        self._encoder = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        for member in self.members:
            self._compare_spelling(None, member)
        self._submits = await self.listen(self.subjects.submit(self.model()), queue=TOKENIZER_GROUP)

    async def drain(self) -> None:
        """Leaves new requests to the other tokenizers, and sends on those it has, or says that it cannot."""
        with contextlib.suppress(TimeoutError, NatsError):
            async with asyncio.timeout(self._settings.drain_timeout):
                await self._submits.drain()  # type: ignore[no-untyped-call]
                await self._idle()
        self._given_up.set_result(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self._idle()

    async def _idle(self) -> None:
        while self._pending or self._mailbox.waiting(Lane.REQUESTS):  # noqa: ASYNC110  a mailbox tells nobody of its end
            await asyncio.sleep(0.01)

    async def teardown(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def model(self) -> str:
        return self._settings.model_name

    def presence_attributes(self) -> dict[str, Any]:
        """max_model_len and vocab_size (0: not known): what fits every ready replica. chat_template: whether any.
        sampling: what ``generation_config.json`` recommends, for the gateways. requests: taken in so far.
        vocabulary: the fingerprint of how tokens are spelled.
        """
        now = self._limits_now()
        return {
            "max_model_len": now.max_model_len,
            "vocab_size": now.vocab_size,
            "chat_template": self._encoder is not None and self._encoder.has_chat_template,
            "sampling": self._defaults,
            "requests": self._requests,
            "vocabulary": self._encoder.fingerprint if self._encoder is not None else "",
        }

    def readiness(self) -> str:
        """A tokenizer is of no use where all detokenizers would make other text of its tokens."""
        ready = self.members.ready("detokenizer", self.model())
        if not ready or self._detokenizers():
            return ""
        names = ", ".join(member.instance for member in ready)
        return f"{names} spells tokens otherwise than {self.instance}: their model files differ"

    def _load(self) -> encode.Encoder:
        directory = model_source.resolve(self._settings.model, weights=False)
        told = limits.from_config(directory)
        self._defaults = sampling_defaults(directory)
        encoder = encode.load(directory, self._settings.reasoning_parser)
        self._limits = Limits(told.max_model_len, told.vocab_size or encoder.vocab_size)
        return encoder

    def _limits_now(self) -> Limits:
        return self._limits.narrowed(self.members.ready("scheduler", self.model()))

    # -- the replicas --

    async def _heard(self, beat: Presence, _envelope: Envelope | None) -> None:
        self.members.update(beat)
        if beat.service != "scheduler" or not self.members.alive(beat.instance, beat.epoch):
            return
        if beat.model != self.model():
            self._router.gone(beat.instance, beat.epoch)
        elif self._router.seen(beat):
            await self._ask_for_cache(beat.instance)

    def _detokenizers(self) -> list[Presence]:
        """Those that are ready and spell every token as this tokenizer does."""
        return [member for member in self.members.ready("detokenizer", self.model()) if self._spells_alike(member)]

    def _spells_alike(self, member: Presence) -> bool:
        # One of an older release tells nothing.
        return self._encoder is None or member.attributes.get("vocabulary") in (None, self._encoder.fingerprint)

    def _compare_spelling(self, before: Presence | None, now: Presence) -> None:
        """Says so, once, if a detokenizer of this model has other files."""
        if now.service != "detokenizer" or now.model != self.model() or self._spells_alike(now):
            return
        if before is None or self._spells_alike(before):
            log.warning(
                "%s on %s spells tokens otherwise than this tokenizer, and gets none of its requests: "
                "the model files of the two differ",
                now.instance,
                now.host,
            )

    def _member_changed(self, before: Presence | None, now: Presence | None) -> None:
        if now is not None:
            self._compare_spelling(before, now)
        if now is None and before is not None and before.service == "scheduler":
            self._router.gone(before.instance, before.epoch)

    async def _cache_changed(self, events: KvEvents, _envelope: Envelope) -> None:
        if self._router.apply(events):
            await self._ask_for_cache(events.replica_id)

    async def _ask_for_cache(self, replica_id: str) -> None:
        await self.bus.publish(self.subjects.replica_control(replica_id), KvSnapshotRequest())

    # -- the requests --

    async def _submitted(self, submit: Submit, envelope: Envelope) -> None:
        size = len(envelope.data)
        self._requests += 1
        if self._given_up.done():
            raise self._not_ready("tokenizer")
        too_much = self._pending > 0 and self._pending_bytes + size > self._settings.max_pending_bytes
        if too_much or self._pending >= self._settings.max_pending:
            raise RequestError(ErrorCode.QUEUE_FULL, "the tokenizer is overloaded", retry_after=1.0)
        self._pending += 1
        self._pending_bytes += size
        if size <= INLINE_BYTES:
            await self._in_work(submit, envelope, threaded=False)
        else:
            self.spawn(self._in_work(submit, envelope, threaded=True))

    async def _in_work(self, submit: Submit, envelope: Envelope, *, threaded: bool) -> None:
        try:
            await self._answer(submit, envelope, threaded=threaded)
        finally:
            self._pending -= 1
            self._pending_bytes -= len(envelope.data)

    async def _answer(self, submit: Submit, envelope: Envelope, *, threaded: bool) -> None:
        """Serves one request; what goes wrong is told to its gateway."""
        span = telemetry.start_span(
            telemetry.SPAN_TOKENIZE,
            telemetry.context_from(envelope.headers),
            kind=SpanKind.CONSUMER,
            attributes={Attr.REQUEST_ID: submit.request_id, Attr.ATTEMPT: submit.attempt, Attr.MODEL: submit.model},
        )
        try:
            await self._send_on(submit, envelope.arrived + submit.time_left, span, threaded=threaded)
        except Exception as error:  # noqa: BLE001  one request's failure must not be another's
            span.set_attribute(Attr.ERROR, error.code if isinstance(error, RequestError) else type(error).__name__)
            try:
                await self.fail_request(submit, error)
            except BusError as bus_error:
                log.warning("could not tell of a failed request: %s", bus_error)
        finally:
            span.end()

    async def _send_on(self, submit: Submit, deadline: float, span: Span, *, threaded: bool) -> None:
        self._check_ready(deadline)
        encoded = await self._encode(submit, threaded=threaded)
        if threaded:
            self._check_ready(deadline)
        namespace = cache_namespace(submit.work.cache_salt, submit.work.lora)
        route = self._router.choose(encoded.ids, namespace, len(choices_of(submit)))
        detokenizer = choose_detokenizer(submit.request_id, self._detokenizers())
        if route is None or detokenizer is None:
            raise self._not_ready("replica" if route is None else "detokenizer")
        _describe(span, len(encoded.ids), route)
        sent = dispatch(submit, encoded, route, detokenizer, deadline - time.monotonic())
        await self._publish(submit, sent, telemetry.headers_of(span))

    async def _encode(self, submit: Submit, *, threaded: bool) -> encode.Encoded:
        if self._encoder is None:
            raise self._not_ready("tokenizer")
        now = self._limits_now()
        if not threaded:
            return self._encoder.encode(submit, now)
        encoding = asyncio.get_running_loop().run_in_executor(self._threads, self._encoder.encode, submit, now)
        either: set[asyncio.Future[Any]] = {encoding, self._given_up}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not encoding.done():
            encoding.cancel()
            raise self._not_ready("tokenizer")
        return encoding.result()

    async def _publish(self, submit: Submit, sent: Dispatch, headers: dict[str, str] | None) -> None:
        """Publishes in this order, which the bus keeps: nobody gets tokens of a request that it has not heard of."""
        detokenizer_inbox = self.subjects.detokenizer_inbox(sent.routed.detokenizer_id)
        try:
            await self.bus.publish(detokenizer_inbox, sent.open_text, headers)
            await self.bus.publish(self.subjects.replica_inbox(sent.routed.replica_id), sent.admit, headers)
        except PayloadTooLarge as error:
            await self.bus.publish(detokenizer_inbox, Cancel.of((submit.request_id, -1, submit.attempt)))
            raise RequestError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"the request with its {sent.routed.prompt_tokens} prompt tokens takes {error.size} bytes, "
                f"over the limit of {error.limit}",
            ) from error
        await self.bus.publish(self.subjects.gateway_inbox(submit.gateway_id), sent.routed)

    def _check_ready(self, deadline: float) -> None:
        if deadline <= time.monotonic():
            raise RequestError(ErrorCode.DEADLINE_EXCEEDED, "the request's deadline passed before it was tokenized")
        for there, name in (
            (self.members.ready("scheduler", self.model()), "replica"),
            (self._detokenizers(), "detokenizer"),
        ):
            if not there:
                raise self._not_ready(name)

    def _not_ready(self, what: str) -> RequestError:
        return RequestError(
            ErrorCode.NOT_READY,
            f"no {what} of model {self.model()} is ready",
            retry_after=self._settings.heartbeat_interval,
        )


def _describe(span: Span, prompt_tokens: int, route: Route) -> None:
    span.set_attribute(Attr.INPUT_TOKENS, prompt_tokens)
    span.set_attribute(Attr.REPLICA, route.replica_id)
    span.set_attribute(Attr.ROUTE_REASON, route.reason)
    span.set_attribute(Attr.MATCHED_TOKENS, route.matched_tokens)

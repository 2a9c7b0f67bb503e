"""The queue's spans: from a choice's arrival to its slot."""

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared import telemetry
from radixmesh.shared.telemetry import Attr


class QueueSpans:
    """A `QueueWatcher` that makes one span per choice; with tracing off it does nothing."""

    def __init__(self, replica_id: str) -> None:
        self.parent = Context()
        """Parent of the spans of sequences queued now: the context that came with their `Admit`."""
        self._replica_id = replica_id
        self._spans: dict[Sequence, Span] = {}

    def queued(self, seq: Sequence) -> None:
        if telemetry.enabled:
            attributes: dict[str, str | int | float | bool | list[str]] = {
                Attr.REQUEST_ID: seq.request_id,
                Attr.ATTEMPT: seq.attempt,
                Attr.CHOICE: seq.choice,
                Attr.REPLICA: self._replica_id,
                Attr.INPUT_TOKENS: seq.prompt_tokens,
            }
            self._spans[seq] = telemetry.start_span(telemetry.SPAN_QUEUE, self.parent, attributes=attributes)

    def admitted(self, seq: Sequence) -> str:
        span = self._spans.pop(seq, None)
        if span is None:
            return ""
        span.set_attribute(Attr.CACHED_TOKENS, seq.cached)
        span.set_attribute(Attr.QUEUE_SECONDS, seq.waited)
        if seq.needs:
            span.set_attribute(Attr.PREPARE_SECONDS, seq.prepare_seconds)
        span.end()
        return telemetry.traceparent_of(span)

    def dropped(self, seq: Sequence, reason: str) -> None:
        span = self._spans.pop(seq, None)
        if span is not None:
            span.set_attribute(Attr.ERROR, reason)
            span.set_status(Status(StatusCode.ERROR, reason))
            span.end()

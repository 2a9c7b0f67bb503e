"""Prefill and decode spans of the running sequences. With tracing off, nothing is kept and nothing costs."""

from dataclasses import dataclass

from opentelemetry.trace import Span

from radixmesh.services.model_worker.engine.outputs import StepResult
from radixmesh.shared import telemetry
from radixmesh.shared.messages import Admission, Finish
from radixmesh.shared.telemetry import Attr


@dataclass(slots=True)
class _Spans:
    prefill: Span
    decode: Span | None = None


class SequenceSpans:
    """Spans by slot: a prefill span from admission to the first token, then a decode span to the end."""

    def __init__(self) -> None:
        self._open: dict[int, _Spans] = {}

    def admitted(self, admissions: list[Admission]) -> None:
        """Opens the prefill spans of a plan's admissions."""
        if not telemetry.enabled:
            return
        for admission in admissions:
            self.released([admission.slot])
            span = telemetry.start_span(
                telemetry.SPAN_PREFILL,
                telemetry.context_from_traceparent(admission.traceparent),
                attributes={
                    Attr.REQUEST_ID: admission.request_id,
                    Attr.CHOICE: admission.choice,
                    Attr.ATTEMPT: admission.attempt,
                    Attr.INPUT_TOKENS: len(admission.prompt_ids),
                    Attr.CACHED_TOKENS: admission.cached_tokens,
                },
            )
            self._open[admission.slot] = _Spans(span)

    def advanced(self, result: StepResult) -> dict[int, str]:
        """Follows a step. Returns the contexts of the decode spans that it began, by slot."""
        if not telemetry.enabled:
            return {}
        begun: dict[int, str] = {}
        for row in result.rows:
            spans = self._open.get(row.slot.index)
            if spans is None:
                continue
            if spans.decode is None:
                spans.prefill.end()
                spans.decode = telemetry.start_span(telemetry.SPAN_DECODE, telemetry.context_of(spans.prefill))
                begun[row.slot.index] = telemetry.traceparent_of(spans.decode)
            if row.finish is not Finish.RUNNING:
                spans.decode.set_attribute(Attr.OUTPUT_TOKENS, row.slot.output_len)
                spans.decode.set_attribute(Attr.FINISH_REASONS, [row.finish.name.lower()])
                spans.decode.end()
                del self._open[row.slot.index]
        for slot, reason in result.failures:
            if (failed := self._open.pop(slot, None)) is not None:
                last = failed.decode or failed.prefill
                last.set_attribute(Attr.ERROR, reason)
                last.end()
        return begun

    def released(self, slots: list[int]) -> None:
        """Ends the spans of sequences that are taken off before their end (cancelled or retracted)."""
        for slot in slots:
            if (spans := self._open.pop(slot, None)) is not None:
                (spans.decode or spans.prefill).end()

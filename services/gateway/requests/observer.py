"""Turns what happens to requests into metrics and trace events."""

import logging

from opentelemetry.trace import Status, StatusCode

from radixmesh.services.gateway.faces.openai.answer import FINISH_REASONS
from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.services.gateway.requests.ports import Observer
from radixmesh.services.gateway.requests.request import LiveRequest
from radixmesh.shared import telemetry
from radixmesh.shared.messages import Finish, Routed
from radixmesh.shared.telemetry import Attr

log = logging.getLogger(__name__)


class Watch(Observer):
    """The gateway's observer of its request table."""

    def __init__(self) -> None:
        self.metrics: Metrics
        """Set once the desk exists, whose load the metrics show."""

    def routed(self, live: LiveRequest, routed: Routed) -> None:
        if live.span.is_recording():
            live.span.set_attributes(
                {
                    Attr.REPLICA: routed.replica_id,
                    Attr.ROUTE_REASON: routed.reason,
                    Attr.ATTEMPT: routed.attempt,
                    Attr.INPUT_TOKENS: live.prompt_tokens,
                    Attr.MODEL: live.submit.model,
                    Attr.TEMPERATURE: live.submit.work.params.temperature,
                    Attr.TOP_P: live.submit.work.params.top_p,
                }
            )

    def first_token(self, live: LiveRequest, now: float) -> None:
        self.metrics.model(live.submit.model).first_token.observe(now - live.started_at)
        live.span.add_event("first token")

    def gap(self, live: LiveRequest, seconds: float) -> None:
        self.metrics.model(live.submit.model).next_token.observe(seconds)

    def redispatched(self, live: LiveRequest, reason: str) -> None:
        self.metrics.redispatches.labels(reason).inc()
        live.span.add_event("re-dispatch", {"reason": reason, Attr.ATTEMPT: live.attempt})
        with telemetry.current(telemetry.context_of(live.span)):
            log.info("request %s goes round again (attempt %d): %s", live.request_id, live.attempt, reason)

    def ended(self, live: LiveRequest, now: float) -> None:
        if live.error is not None:
            self.metrics.failures.labels(live.error.code.value).inc()
        if live.prompt_tokens:  # a known model: names that clients make up must not become series
            series = self.metrics.model(live.submit.model)
            series.prompt_tokens.inc(live.prompt_tokens)
            series.cached_tokens.inc(live.cached_tokens)
            series.output_tokens.inc(live.output_tokens)
            if live.error is None:
                series.whole.observe(now - live.started_at)
        self._end_span(live)

    def _end_span(self, live: LiveRequest) -> None:
        span = live.span
        if span.is_recording():
            reasons = [FINISH_REASONS[c.finish] for c in live.choices if c.finish is not Finish.RUNNING]
            span.set_attributes(
                {
                    Attr.INPUT_TOKENS: live.prompt_tokens,
                    Attr.OUTPUT_TOKENS: live.output_tokens,
                    Attr.CACHED_TOKENS: live.cached_tokens,
                    Attr.FINISH_REASONS: reasons,
                    Attr.ATTEMPT: live.attempt,
                }
            )
            if live.error is not None:
                span.set_attribute(Attr.ERROR, live.error.code.value)
                span.set_status(Status(StatusCode.ERROR, live.error.message))
        span.end()

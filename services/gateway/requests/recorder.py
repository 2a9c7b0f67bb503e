"""Turns what happens to requests into metrics and trace events."""

import logging

from opentelemetry.trace import Status, StatusCode

from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.services.gateway.requests.ports import Observer
from radixmesh.services.gateway.requests.request import FINISH_REASONS, Request
from radixmesh.shared import telemetry
from radixmesh.shared.messages import Finish, Routed
from radixmesh.shared.telemetry import Attr

log = logging.getLogger(__name__)


class Recorder(Observer):
    """The gateway's observer of its request table."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def routed(self, request: Request, routed: Routed) -> None:
        if request.span.is_recording():
            request.span.set_attributes(
                {
                    Attr.REPLICA: routed.replica_id,
                    Attr.ROUTE_REASON: routed.reason,
                    Attr.ATTEMPT: routed.attempt,
                    Attr.INPUT_TOKENS: request.prompt_tokens,
                    Attr.MODEL: request.submit.model,
                    Attr.TEMPERATURE: request.submit.work.params.temperature,
                    Attr.TOP_P: request.submit.work.params.top_p,
                }
            )

    def first_token(self, request: Request, now: float) -> None:
        self._metrics.model(request.submit.model).first_token.observe(now - request.started_at)
        request.span.add_event("first token")

    def gap(self, request: Request, seconds: float) -> None:
        self._metrics.model(request.submit.model).next_token.observe(seconds)

    def redispatched(self, request: Request, reason: str) -> None:
        self._metrics.redispatches.labels(reason).inc()
        request.span.add_event("re-dispatch", {"reason": reason, Attr.ATTEMPT: request.attempt})
        with telemetry.current(telemetry.context_of(request.span)):
            log.info("request %s goes round again (attempt %d): %s", request.request_id, request.attempt, reason)

    def ended(self, request: Request, now: float) -> None:
        if request.error is not None:
            self._metrics.failures.labels(request.error.code.value).inc()
        if request.prompt_tokens:  # a known model: names that clients make up must not become series
            series = self._metrics.model(request.submit.model)
            series.prompt_tokens.inc(request.prompt_tokens)
            series.cached_tokens.inc(request.cached_tokens)
            series.output_tokens.inc(request.output_tokens)
            if request.error is None:
                series.whole.observe(now - request.started_at)
        self._end_span(request)

    def _end_span(self, request: Request) -> None:
        span = request.span
        if span.is_recording():
            reasons = [FINISH_REASONS[c.finish] for c in request.choices if c.finish is not Finish.RUNNING]
            span.set_attributes(
                {
                    Attr.INPUT_TOKENS: request.prompt_tokens,
                    Attr.OUTPUT_TOKENS: request.output_tokens,
                    Attr.CACHED_TOKENS: request.cached_tokens,
                    Attr.FINISH_REASONS: reasons,
                    Attr.ATTEMPT: request.attempt,
                }
            )
            if request.error is not None:
                span.set_attribute(Attr.ERROR, request.error.code.value)
                span.set_status(Status(StatusCode.ERROR, request.error.message))
        span.end()

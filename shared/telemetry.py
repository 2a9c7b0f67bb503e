"""Traces, logs and the names of their attributes.

Tracing is on when the standard ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``..._TRACES_ENDPOINT``) names a collector and
neither ``OTEL_SDK_DISABLED=true`` nor ``OTEL_TRACES_EXPORTER=none`` is set. When off, `enabled` is False, no SDK is
imported, and callers skip headers and spans altogether. A variable with which the SDK cannot start, or that asks for
what we do not have, costs the traces and a line in the log, never the service.

A request's spans form one chain over the processes, each the child of the one before:

    gateway.request > tokenizer.tokenize > scheduler.queue > worker.prefill > worker.decode > detokenizer.detokenize
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from radixmesh.shared import otel

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger(__name__)

SPAN_REQUEST = "gateway.request"
SPAN_TOKENIZE = "tokenizer.tokenize"
SPAN_QUEUE = "scheduler.queue"
SPAN_PREFILL = "worker.prefill"
SPAN_DECODE = "worker.decode"
SPAN_DETOKENIZE = "detokenizer.detokenize"

CHAIN = (SPAN_REQUEST, SPAN_TOKENIZE, SPAN_QUEUE, SPAN_PREFILL, SPAN_DECODE, SPAN_DETOKENIZE)
"""Each span's parent is the one before it."""


class Attr:
    """Span attribute names: OpenTelemetry's gen_ai conventions, and ours under ``radixmesh.``."""

    OPERATION = "gen_ai.operation.name"
    SYSTEM = "gen_ai.provider.name"
    MODEL = "gen_ai.request.model"
    MAX_TOKENS = "gen_ai.request.max_tokens"
    TEMPERATURE = "gen_ai.request.temperature"
    TOP_P = "gen_ai.request.top_p"
    SEED = "gen_ai.request.seed"
    CHOICE_COUNT = "gen_ai.request.choice.count"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    ERROR = "error.type"
    REQUEST_ID = "radixmesh.request_id"
    ATTEMPT = "radixmesh.attempt"
    CHOICE = "radixmesh.choice"
    REPLICA = "radixmesh.replica"
    ROUTE_REASON = "radixmesh.route_reason"
    MATCHED_TOKENS = "radixmesh.route_matched_tokens"
    QUEUE_SECONDS = "radixmesh.queue_seconds"
    PREPARE_SECONDS = "radixmesh.prepare_seconds"
    CHUNKS = "radixmesh.prefill_chunks"


enabled = False
"""True once `setup` has installed an exporter."""

_propagator = TraceContextTextMapPropagator()


def setup(service: str, instance: str) -> None:
    """Installs the OTLP gRPC exporter if the environment asks for one. Call once per process."""
    global enabled
    if not _wanted(os.environ):
        return
    try:
        provider = _provider(os.environ, {"service.name": f"radixmesh-{service}", "service.instance.id": instance})
    except Exception as error:  # noqa: BLE001  of many unrelated types, some of them while the SDK is imported
        log.warning("no traces are sent: %s", otel.blame(error, os.environ))
        return
    trace.set_tracer_provider(provider)
    enabled = True


def _wanted(environ: Mapping[str, str]) -> bool:
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(endpoint) and not disabled and environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none"


def _provider(environ: Mapping[str, str], attributes: Mapping[str, str]) -> "TracerProvider":
    otel.require_supported(environ)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create(attributes))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def shutdown() -> None:
    """Sends what spans are left, waiting at most two seconds."""
    if enabled:
        provider = trace.get_tracer_provider()
        provider.force_flush(2000)  # type: ignore[attr-defined]
        provider.shutdown()  # type: ignore[attr-defined]


def start_span(
    name: str,
    parent: Context | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int | float | bool | list[str]] | None = None,
) -> Span:
    """Starts a span that the caller must end. With tracing off, gives the invalid span at no cost."""
    if not enabled:
        return INVALID_SPAN
    return trace.get_tracer("radixmesh").start_span(name, parent or Context(), kind=kind, attributes=attributes)


def context_of(span: Span) -> Context:
    """The context in which `span` is the parent."""
    return trace.set_span_in_context(span, Context())


def headers_of(span: Span | None) -> dict[str, str] | None:
    """W3C trace context of `span` as message headers; None with tracing off."""
    if not enabled or span is None:
        return None
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context_of(span))
    return carrier or None


def traceparent_of(span: Span | None) -> str:
    """`span` as a ``traceparent`` value; empty with tracing off."""
    return (headers_of(span) or {}).get("traceparent", "")


def context_from(headers: Mapping[str, str] | None) -> Context:
    """The remote parent named by message or HTTP headers; an empty context if there is none."""
    if not enabled or not headers:
        return Context()
    return _propagator.extract(headers, Context())


@contextmanager
def current(context: Context) -> Iterator[None]:
    """Makes `context` the current one, so that log lines written inside carry its trace id."""
    if not enabled:
        yield
        return
    token = attach(context)
    try:
        yield
    finally:
        detach(token)


def context_from_traceparent(traceparent: str) -> Context:
    """The remote parent named by one ``traceparent`` value."""
    return context_from({"traceparent": traceparent}) if traceparent else Context()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, trace ids, and `extra` fields."""

    _standard = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._service = service
        self._instance = instance

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "instance": self._instance,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            entry["trace_id"] = f"{span.trace_id:032x}"
            entry["span_id"] = f"{span.span_id:016x}"
        entry.update({key: value for key, value in record.__dict__.items() if key not in self._standard})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def setup_logging(service: str, instance: str, level: str, style: str) -> None:
    """Sends all logging to standard error, as JSON or as text."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(JsonFormatter(service, instance))
    else:
        handler.setFormatter(
            logging.Formatter(f"%(asctime)s %(levelname)-7s {instance}: %(message)s", datefmt="%H:%M:%S")
        )
    handler.addFilter(otel.one_line)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())

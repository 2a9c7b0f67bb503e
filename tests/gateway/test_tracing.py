"""The request span: its parent, its attributes, its events, and the headers that hand it on."""

from collections.abc import Iterator

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from radixmesh.shared import telemetry
from radixmesh.shared.telemetry import Attr
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import MODEL, Ring

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "enabled", True)
    monkeypatch.setattr(telemetry.trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


async def test_one_span_a_request(spans: InMemorySpanExporter, http: aiohttp.ClientSession, ring: Ring) -> None:
    request = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "lost:1"}],
        "temperature": 0.5,
        "max_tokens": 6,
    }
    headers = {"Traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with http.post("/v1/chat/completions", json=request, headers=headers) as response:
        assert response.status == 200
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == (telemetry.SPAN_REQUEST, SpanKind.SERVER)
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(span.attributes or {}) | {Attr.SEED: "?"} == {
        Attr.OPERATION: "chat",
        Attr.SYSTEM: "radixmesh",
        Attr.MODEL: MODEL,
        Attr.MAX_TOKENS: 6,
        Attr.TEMPERATURE: 0.5,
        Attr.TOP_P: 1.0,
        Attr.SEED: "?",
        Attr.CHOICE_COUNT: 1,
        Attr.INPUT_TOKENS: 7,
        Attr.OUTPUT_TOKENS: 6,
        Attr.CACHED_TOKENS: 4,
        Attr.FINISH_REASONS: ("length",),
        Attr.REQUEST_ID: ring.submits[0].request_id,
        Attr.ATTEMPT: 1,
        Attr.REPLICA: "replica-0",
        Attr.ROUTE_REASON: "only",
    }
    assert [event.name for event in span.events] == ["first token", "re-dispatch"]
    assert span.context is not None
    handed_on = f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert [sent["traceparent"] for sent in ring.headers] == [handed_on, handed_on]


async def test_errors_are_told(spans: InMemorySpanExporter, ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(strict_model_names=True)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        for model, prompt in ((MODEL, "fail:internal_error"), ("nobody", "x")):
            async with http.post("/v1/completions", json={"model": model, "prompt": prompt}) as response:
                assert response.status >= 400
    failed, unknown = spans.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})[Attr.ERROR] == "internal_error"
    assert (failed.attributes or {})[Attr.OPERATION] == "text_completion"
    assert (unknown.attributes or {})[Attr.ERROR] == "model_not_found"


async def test_nothing_is_sent_with_tracing_off(http: aiohttp.ClientSession, ring: Ring) -> None:
    async with http.post("/v1/completions", json={"model": MODEL, "prompt": "echo:1"}) as response:
        assert response.status == 200
    assert ring.headers == [None]

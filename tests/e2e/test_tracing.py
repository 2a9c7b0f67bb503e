"""One trace per request across all five processes, as a real OTLP receiver sees it."""

import itertools
import json
from collections.abc import Iterator

import openai
import pytest

from radixmesh.shared.telemetry import CHAIN, Attr
from tests.e2e.otlp import Collector, attributes
from tests.serving import ServeProcess, wait_for

SERVICES = dict(
    zip(
        CHAIN,
        ("gateway", "tokenizer", "scheduler", "model_worker", "model_worker", "detokenizer"),
        strict=True,
    )
)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def mesh(collector: Collector) -> Iterator[ServeProcess]:
    with ServeProcess(environ=collector.environ) as mesh:
        yield mesh


def ask(mesh: ServeProcess, trace: str, **fields: object) -> openai.types.Completion:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none") as client:
        headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
        body = {"ignore_eos": True}
        request = {"model": mesh.model, "prompt": "one two three", "max_tokens": 5, "temperature": 0.0, **fields}
        return client.completions.create(**request, extra_body=body, extra_headers=headers)


def test_every_edge_of_the_chain(mesh: ServeProcess, collector: Collector) -> None:
    answer = ask(mesh, TRACE)
    wait_for(lambda: len(collector.spans(TRACE)) >= len(CHAIN), 30, "the spans of a request")
    spans = {span.name: (service, span) for service, span in collector.spans(TRACE)}
    assert set(spans) == set(CHAIN)
    assert spans[CHAIN[0]][1].parent_span_id.hex() == PARENT
    for parent, child in itertools.pairwise(CHAIN):
        assert spans[child][1].parent_span_id == spans[parent][1].span_id, f"{parent} -> {child}"
    assert {name: service for name, (service, _) in spans.items()} == {
        name: f"radixmesh-{service}" for name, service in SERVICES.items()
    }
    starts = [spans[name][1].start_time_unix_nano for name in CHAIN]
    assert starts == sorted(starts)

    request, queue, prefill, decode = (attributes(spans[name][1]) for name in (CHAIN[0], CHAIN[2], CHAIN[3], CHAIN[4]))
    assert request[Attr.MODEL] == mesh.model
    assert request[Attr.OPERATION] == "text_completion"
    assert request[Attr.INPUT_TOKENS] == answer.usage.prompt_tokens
    assert request[Attr.OUTPUT_TOKENS] == decode[Attr.OUTPUT_TOKENS] == 5
    assert request[Attr.FINISH_REASONS] == ["length"]
    assert request[Attr.ROUTE_REASON] == "only"
    assert request[Attr.REPLICA]
    assert queue[Attr.QUEUE_SECONDS] >= 0
    assert prefill[Attr.INPUT_TOKENS] == answer.usage.prompt_tokens
    assert prefill[Attr.CACHED_TOKENS] == answer.usage.prompt_tokens_details.cached_tokens


def test_each_choice_has_its_own_branch(mesh: ServeProcess, collector: Collector) -> None:
    trace = "1" * 32
    ask(mesh, trace, n=2, temperature=1.0, seed=1)
    per_choice = [name for name in CHAIN if name not in CHAIN[:2]]
    wait_for(lambda: len(collector.spans(trace)) >= 2 + 2 * len(per_choice), 30, "the spans of two choices")
    by_name: dict[str, list[bytes]] = {}
    for _service, span in collector.spans(trace):
        by_name.setdefault(span.name, []).append(span.span_id)
    assert {name: len(ids) for name, ids in by_name.items()} == {name: 2 if name in per_choice else 1 for name in CHAIN}


def test_logs_carry_the_trace(collector: Collector) -> None:
    """JSON logs of a failing request name its trace, so that log and trace can be joined."""
    with ServeProcess("--strict-model-names", "--set", "gateway.log-format=json", environ=collector.environ) as mesh:
        trace = "2" * 32
        with pytest.raises(openai.NotFoundError):
            ask(mesh, trace, model="no-such-model")
        wait_for(
            lambda: any(
                json.loads(line).get("trace_id") == trace
                for line in mesh.log("gateway-0").splitlines()
                if line.startswith("{") and line.endswith("}")
            ),
            30,
            "a log line with the trace of the request",
        )

"""A real tokenizer on a real bus, between a scripted gateway, schedulers and detokenizers."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.dispatch import TAIL
from radixmesh.services.tokenizer.encode import Encoded
from radixmesh.services.tokenizer.limits import Limits
from radixmesh.services.tokenizer.routing.router import choose_detokenizer
from radixmesh.services.tokenizer.service import INLINE_BYTES, Tokenizer
from radixmesh.shared import telemetry
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode, ModelLoadError
from radixmesh.shared.messages import (
    Admit,
    Cancel,
    Choice,
    KvEvents,
    KvSnapshotRequest,
    OpenText,
    RequestFailed,
    Routed,
    SamplingParams,
    State,
    Submit,
    Work,
)
from radixmesh.shared.prefix_hash import block_hashes, cache_namespace
from radixmesh.shared.telemetry import Attr
from tests.support import NatsServer, until
from tests.tokenizer.conftest import Start
from tests.tokenizer.scripted import SIZES, Mesh, rid
from tests.tokenizer.small_tokenizers import byte_level


async def test_three_messages_in_order(mesh: Mesh, serving: Tokenizer) -> None:
    messages = [{"role": "user", "content": "Once upon a time there was a little girl."}]
    params = SamplingParams(n=3, stop=["END"], max_tokens=9, skip_special_tokens=False)
    work = Work(params=params, lora="l", cache_salt="s", priority=4)
    await mesh.submit(rid(1), messages=messages, work=work)
    routed = await mesh.answer(rid(1))
    assert isinstance(routed, Routed)
    detokenizer = choose_detokenizer(rid(1), [mesh.members["d1"], mesh.members["d2"]])
    assert detokenizer is not None
    (where, open_text), (to, admit), (_, _) = mesh.of(rid(1))
    assert isinstance(open_text, OpenText)
    assert isinstance(admit, Admit)
    assert where == f"detokenizer.{detokenizer.instance}.inbox"
    assert to == f"replica.{routed.replica_id}.inbox"
    prompt = "<|im_start|>user\nOnce upon a time there was a little girl.<|im_end|>\n<|im_start|>assistant\n"
    assert byte_level().decode(admit.prompt_ids.tolist(), skip_special_tokens=False) == prompt
    assert open_text.prompt_tail.tolist() == admit.prompt_ids.tolist()[-TAIL:]
    assert open_text.prompt_tokens == routed.prompt_tokens == len(admit.prompt_ids)
    assert [choice.index for choice in open_text.choices] == [choice.index for choice in admit.choices] == [0, 1, 2]
    assert (open_text.stop, open_text.skip_special_tokens) == (["END"], False)
    assert admit.work == work
    assert admit.detokenizer_id == routed.detokenizer_id == detokenizer.instance
    assert (routed.replica_epoch, routed.detokenizer_epoch, admit.replica_epoch) == (1, 1, 1)
    assert routed.reason == "least_loaded"


async def test_the_time_that_encoding_takes_is_the_requests(
    mesh: Mesh, serving: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is passed on are the seconds left then."""
    text = "a " * INLINE_BYTES

    def slow(_submit: Submit, _now: Limits) -> Encoded:
        time.sleep(0.5)
        return Encoded(np.arange(5, dtype=np.int32))

    monkeypatch.setattr(serving._encoder, "encode", slow)
    await mesh.submit(rid(1), text=text, time_left=30.0)
    assert isinstance(await mesh.answer(rid(1)), Routed)
    (_, open_text), (_, admit), (_, _) = mesh.of(rid(1))
    assert isinstance(open_text, OpenText)
    assert isinstance(admit, Admit)
    assert 0.0 < admit.time_left == open_text.time_left < 29.5
    await mesh.submit(rid(2), text=text, time_left=0.25)
    failed = await mesh.answer(rid(2))
    assert isinstance(failed, RequestFailed)
    assert failed.code is ErrorCode.DEADLINE_EXCEEDED


async def test_resumed_choices_are_passed_on(mesh: Mesh, serving: Tokenizer) -> None:
    choices = [Choice(index=1, resumed=[7, 8, 9])]
    await mesh.submit(rid(1), attempt=2, text="the quick", work=Work(params=SamplingParams(n=2)), choices=choices)
    assert isinstance(await mesh.answer(rid(1)), Routed)
    (_, open_text), (_, admit), (_, routed) = mesh.of(rid(1))
    assert isinstance(open_text, OpenText)
    assert isinstance(admit, Admit)
    assert isinstance(routed, Routed)
    assert admit.prompt_ids.tolist() == byte_level().encode("the quick").ids
    assert [(choice.index, choice.resumed.tolist()) for choice in admit.choices] == [(1, [7, 8, 9])]
    assert [(choice.index, choice.resumed.tolist()) for choice in open_text.choices] == [(1, [7, 8, 9])]
    assert open_text.attempt == admit.attempt == routed.attempt == 2


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"text": ""}, ErrorCode.INVALID_REQUEST, "empty"),
        ({"messages": []}, ErrorCode.INVALID_REQUEST, "empty"),
        ({"messages": [{"role": "villain", "content": ""}]}, ErrorCode.INVALID_REQUEST, "no villains here"),
        ({"token_ids": [401]}, ErrorCode.INVALID_REQUEST, "token id 401"),
        ({"token_ids": [5] * 200}, ErrorCode.CONTEXT_LENGTH_EXCEEDED, "200 tokens"),
        ({"text": "x" * 50_000}, ErrorCode.CONTEXT_LENGTH_EXCEEDED, "50000 characters"),
        ({"text": "x", "work": Work(params=SamplingParams(max_tokens=200))}, ErrorCode.CONTEXT_LENGTH_EXCEEDED, "201"),
        ({"text": "x", "time_left": 0.0}, ErrorCode.DEADLINE_EXCEEDED, "deadline"),
    ],
)
async def test_refusals(mesh: Mesh, serving: Tokenizer, fields: dict[str, Any], code: ErrorCode, words: str) -> None:
    await mesh.submit(rid(1), **fields)
    failed = await mesh.refusal(rid(1))
    assert failed.code is code
    assert words in failed.message
    assert len(mesh.of(rid(1))) == 1
    await mesh.submit(rid(2), text="fine")
    assert isinstance(await mesh.answer(rid(2)), Routed)


async def test_not_ready(mesh: Mesh, start: Start) -> None:
    await start("t1")
    await mesh.ready("t1")
    assert mesh.presence["t1"].model == "small"
    assert {**mesh.presence["t1"].attributes, "pid": 0, "vocabulary": ""} == {
        "pid": 0, "max_model_len": 64, "vocab_size": 401, "chat_template": True, "sampling": {}, "requests": 0,
        "vocabulary": "",
    }  # fmt: skip
    await mesh.submit(rid(1), text="x")
    failed = await mesh.refusal(rid(1))
    assert (failed.code, failed.retry_after) == (ErrorCode.NOT_READY, 0.2)
    assert "replica" in failed.message
    await mesh.beat("scheduler", "a", attributes=SIZES)
    await mesh.submit(rid(2), text="x")
    assert "detokenizer" in (await mesh.refusal(rid(2))).message
    await mesh.beat("detokenizer", "d1", model="another")
    await mesh.submit(rid(3), text="x")
    assert "detokenizer" in (await mesh.refusal(rid(3))).message
    await mesh.beat("detokenizer", "d2")
    await mesh.submit(rid(4), text="x")
    answer = await mesh.answer(rid(4))
    assert isinstance(answer, Routed)
    assert (answer.reason, answer.detokenizer_id) == ("only", "d2")
    await until(lambda: mesh.presence["t1"].attributes["max_model_len"] == 200)
    await mesh.beat("scheduler", "a", model="")
    await mesh.submit(rid(5), text="x")
    assert (await mesh.refusal(rid(5))).code is ErrorCode.NOT_READY


async def test_routes_by_cached_prefix(mesh: Mesh, serving: Tokenizer) -> None:
    """The tokenizer asks for the caches of those it meets, and follows their events."""
    asked = {"replica.a.control", "replica.b.control"}
    requests = [subject for subject, message in mesh.got if isinstance(message, KvSnapshotRequest)]
    await until(lambda: asked <= {subject for subject, _ in mesh.got})
    ids = np.arange(10, 90, dtype=np.int32)
    for name, stored in (("a", []), ("b", block_hashes(ids, 16, cache_namespace("", "")))):
        snapshot = {"replica_id": name, "epoch": 1, "seq": 5, "block_size": 16, "cleared": True, "stored": stored}
        await mesh.bus.publish(mesh.subjects.kv_events, KvEvents.model_validate(snapshot))
    for number in range(4):
        await mesh.submit(rid(number), token_ids=[*ids.tolist(), 100 + number])
        answer = await mesh.answer(rid(number))
        assert isinstance(answer, Routed)
        assert (answer.replica_id, answer.reason) == ("b", "prefix")
    await mesh.beat("scheduler", "b", State.GONE)
    await mesh.submit(rid(9), token_ids=ids)
    answer = await mesh.answer(rid(9))
    assert isinstance(answer, Routed)
    assert (answer.replica_id, answer.reason) == ("a", "only")
    mesh.got.clear()
    await mesh.beat("scheduler", "b", epoch=2, attributes=SIZES)
    await until(lambda: "replica.b.control" in {subject for subject, _ in mesh.got})
    assert len(requests) <= 2


async def test_two_tokenizers_share_the_work(
    mesh: Mesh, serving: Tokenizer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await start("t2")
    await mesh.ready("t2")
    for name in ("a", "b"):
        await mesh.beat("scheduler", name, attributes=SIZES)
    for name in ("d1", "d2"):
        await mesh.beat("detokenizer", name)
    for unit in (serving, other):
        await until(lambda unit=unit: all(unit.members.ready(each) for each in ("scheduler", "detokenizer")))  # type: ignore[misc]
    worked: Counter[str] = Counter()
    for unit in (serving, other):
        original = unit._router.choose

        def count(*args: Any, _unit: Tokenizer = unit, _original: Any = original) -> Any:
            worked[_unit.instance] += 1
            return _original(*args)

        monkeypatch.setattr(unit._router, "choose", count)
    for number in range(60):
        await mesh.submit(rid(number), text=f"request {number}")
    await until(lambda: sum(isinstance(message, Routed) for _, message in mesh.got) == 60)
    assert all(len(mesh.of(rid(number))) == 3 for number in range(60))
    assert set(worked) == {"t1", "t2"}
    assert sum(worked.values()) == 60


async def test_a_long_text_does_not_hold_up_short_ones(mesh: Mesh, serving: Tokenizer) -> None:
    await mesh.beat("scheduler", "a", attributes={"max_model_len": 10**6, "vocab_size": 401})
    await mesh.beat("scheduler", "b", attributes={"max_model_len": 10**6, "vocab_size": 401})
    await until(lambda: serving.presence_attributes()["max_model_len"] == 10**6)
    await mesh.submit(rid(1), text="the quick brown fox " * 40_000)
    await mesh.submit(rid(2), text="short")
    assert isinstance(await mesh.answer(rid(2)), Routed)
    assert not mesh.of(rid(1))
    failed = await mesh.refusal(rid(1))  # its ids do not fit a message
    assert failed.code is ErrorCode.REQUEST_TOO_LARGE
    assert "over the limit of 1048576" in failed.message
    opened = next(subject for subject, message in mesh.of(rid(1)) if isinstance(message, OpenText))
    taken_back = [message for subject, message in mesh.got if subject == opened and isinstance(message, Cancel)]
    assert [message.request_ids for message in taken_back] == [[rid(1)]]


async def test_work_is_bounded(mesh: Mesh, serving: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_pending", serving._settings.max_pending)
    await mesh.submit(rid(1), text="x")
    failed = await mesh.refusal(rid(1))
    assert (failed.code, failed.retry_after) == (ErrorCode.QUEUE_FULL, 1.0)
    monkeypatch.setattr(serving, "_pending", 1)
    monkeypatch.setattr(serving, "_pending_bytes", serving._settings.max_pending_bytes)
    await mesh.submit(rid(2), text="x")
    assert (await mesh.refusal(rid(2))).code is ErrorCode.QUEUE_FULL


async def test_one_requests_failure_is_its_own(mesh: Mesh, serving: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise ValueError("a secret of the inside")

    with monkeypatch.context() as patch:
        patch.setattr(serving._router, "choose", broken)
        await mesh.submit(rid(1), text="x")
        failed = await mesh.refusal(rid(1))
        assert failed.code is ErrorCode.INTERNAL
        assert "secret" not in failed.message
    await mesh.submit(rid(2), text="x")
    assert isinstance(await mesh.answer(rid(2)), Routed)


async def test_requests_survive_a_restart_of_the_bus(model: Path) -> None:
    server = NatsServer()
    server.start()
    base = ServiceSettings(nats_url=server.url, namespace="r", heartbeat_interval=0.2, log_format="text")
    bus = await Bus.connect(base, "mesh")
    mesh = Mesh(bus, "r")
    await mesh.listen()
    options = base.model_dump(include={"nats_url", "namespace", "heartbeat_interval"})
    unit = Tokenizer(TokenizerSettings(**options, model=str(model), instance="t1"))
    task = asyncio.create_task(unit.run())
    try:
        await mesh.ready("t1")
        server.stop()
        await until(lambda: not unit.bus.connected and not bus.connected)
        server.start()
        await until(lambda: unit.bus.connected and bus.connected)
        async with asyncio.timeout(20):  # the first beats may come before the server has the subscriptions again
            while not (unit.members.ready("scheduler") and unit.members.ready("detokenizer")):
                await mesh.beat("scheduler", "a", attributes=SIZES)
                await mesh.beat("detokenizer", "d1")
                await asyncio.sleep(0.05)
        await mesh.submit(rid(1), text="again")
        assert isinstance(await mesh.answer(rid(1)), Routed)
    finally:
        unit.stop()
        await task
        await bus.close()
        server.stop()


async def test_a_missing_model_is_said(settings: ServiceSettings) -> None:
    base = settings.model_dump(include={"nats_url", "namespace"})
    unit = Tokenizer(TokenizerSettings(**base, model="/no/such/place"))
    with pytest.raises(ModelLoadError, match="/no/such/place"):
        await unit.run()


async def test_span_and_headers(mesh: Mesh, serving: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "enabled", True)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    await mesh.submit(rid(1), text="the quick", headers=parent)
    routed = await mesh.answer(rid(1))
    assert isinstance(routed, Routed)
    await until(exporter.get_finished_spans)
    (span,) = exporter.get_finished_spans()
    assert span.name == telemetry.SPAN_TOKENIZE
    assert span.parent is not None
    assert span.attributes is not None
    assert (span.context.trace_id, span.parent.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
    assert span.attributes[Attr.INPUT_TOKENS] == routed.prompt_tokens
    assert span.attributes[Attr.REPLICA] == routed.replica_id
    assert span.attributes[Attr.ROUTE_REASON] == routed.reason
    assert span.attributes[Attr.MATCHED_TOKENS] == 0
    wanted = f"00-{'a' * 32}-{span.context.span_id:016x}-01"
    assert mesh.headers["OpenText"]["traceparent"] == mesh.headers["Admit"]["traceparent"] == wanted
    await mesh.submit(rid(2), text="", headers=parent)
    await mesh.refusal(rid(2))
    await until(lambda: len(exporter.get_finished_spans()) == 2)
    assert exporter.get_finished_spans()[1].attributes == {
        Attr.REQUEST_ID: rid(2), Attr.ATTEMPT: 0, Attr.MODEL: "small", Attr.ERROR: "invalid_request"
    }  # fmt: skip


async def test_detokenizers_that_spell_otherwise_get_nothing(
    mesh: Mesh, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Two hosts with different files of one model: each tokenizer keeps to those who read what it reads."""
    unit = await start("t1")
    await mesh.ready("t1")
    mine = mesh.presence["t1"].attributes["vocabulary"]
    await mesh.beat("scheduler", "a", attributes=SIZES)
    await mesh.beat("detokenizer", "odd", host="elsewhere", attributes={"vocabulary": "other"})
    await until(lambda: unit.readiness())
    await until(lambda: mesh.presence["t1"].state is State.STARTING)
    assert mesh.presence["t1"].detail == "odd spells tokens otherwise than t1: their model files differ"
    await mesh.submit(rid(1), text="the fox")
    assert (await mesh.refusal(rid(1))).code is ErrorCode.NOT_READY

    await mesh.beat("detokenizer", "alike", attributes={"vocabulary": mine})
    await mesh.beat("detokenizer", "older", attributes={})
    await mesh.beat("detokenizer", "odd", host="elsewhere", attributes={"vocabulary": "other", "requests": 3})
    await until(lambda: len(unit.members.ready("detokenizer")) == 3)
    await until(lambda: mesh.presence["t1"].state is State.READY)
    chosen = set()
    for number in range(2, 34):
        await mesh.submit(rid(number), text="the fox")
        answer = await mesh.answer(rid(number))
        assert isinstance(answer, Routed)
        chosen.add(answer.detokenizer_id)
    assert chosen == {"alike", "older"}
    said = [record for record in caplog.records if "odd on elsewhere spells tokens otherwise" in record.getMessage()]
    assert len(said) == 1

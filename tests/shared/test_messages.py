"""The contract: what each message looks like on the wire, and how foreign bytes are met."""

import contextlib
import json
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared import messages as m
from radixmesh.shared.errors import ErrorCode, MessageError

GOLDEN = Path(__file__).parent / "golden_messages.json"


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def u8(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


PARAMS = m.SamplingParams(n=2, temperature=0.5, stop=["\n"], stop_token_ids=[7], logit_bias={3: -1.5}, seed=2**63)
WORK = m.Work(params=PARAMS, lora="l", cache_salt="s", priority=3)
CHOICES = [m.Choice(index=1, resumed=i32(4, 5))]

EXAMPLES: list[m.Message] = [
    m.Submit(
        request_id="r", gateway_id="g", model="tiny", messages=[{"role": "user", "content": "hé"}], work=WORK,
        choices=CHOICES, time_left=2.5,
    ),
    m.Routed(
        request_id="r", attempt=1, replica_id="r0", replica_epoch=9, detokenizer_id="d", detokenizer_epoch=8,
        prompt_tokens=3, reason="prefix",
    ),
    m.OpenText(
        request_id="r", attempt=0, gateway_id="g", prompt_tail=i32(1, 2), prompt_tokens=2, choices=CHOICES, stop=["x"],
        time_left=2.5,
    ),
    m.Admit(
        request_id="r", attempt=0, gateway_id="g", detokenizer_id="d", replica_epoch=9, prompt_ids=i32(1, 2),
        work=WORK, choices=CHOICES, time_left=2.5,
    ),
    m.Claim(scheduler_id="s", replica_id="r0", epoch=9),
    m.Claimed(
        group_id="w", max_slots=4, max_model_len=64, vocab_size=99, eos_token_ids=[2],
        ranks=2, prepares={"lora": 4},
        groups=[
            m.KvGroup(page_size=16, num_pages=8),
            m.KvGroup(kind=m.KvKind.WINDOW, page_size=16, num_pages=5, window=40),
        ],
    ),
    m.Refused(reason="busy"),
    m.StepPlan(
        epoch=9, seq=1, releases=i32(3),
        admissions=[
            m.Admission(
                slot=0, request_id="r", choice=0, attempt=0, detokenizer_id="d", prompt_ids=i32(1, 2), work=WORK,
            )
        ],
        grant_slots=i32(0), grant_groups=i32(1), grant_starts=i32(3), grant_counts=i32(2), grant_pages=i32(5, 6),
        span_slots=i32(1, 0), span_starts=i32(7, 0), span_counts=i32(1, 2), span_sampled=u8(1, 0),
        span_drafts=i32(3, 0),
    ),
    m.Prepare(epoch=9, number=7, replica_id="r0", kind="lora", work=WORK.only("lora"), replaces=2),
    m.Prepared(epoch=9, number=7, rank=1, seconds=0.5, code=ErrorCode.INVALID_REQUEST, message="no", param="lora"),
    m.StepReport(
        epoch=9, seq=1, accepted=i32(2, 0), tokens=i32(42, 43), finish=u8(1, 0), failed_slots=i32(2), failures=["no"],
        step_us=10, gap_us=1,
    ),
    m.TokenBatch(
        replica_id="r0", epoch=9, request_ids=["r"], choices=i32(0), attempts=i32(0), first_index=i32(3), counts=i32(1),
        tokens=i32(42), finish=u8(0), cached_tokens=i32(16), stop_tokens=i32(-1), traceparents=["00-a"],
        logprobs=f32(-0.5), top_counts=i32(1), top_ids=i32(42), top_logprobs=f32(-0.5),
    ),
    m.TextBatch(
        detokenizer_id="d", request_ids=["r"], choices=i32(0), attempts=i32(0), first_index=i32(3), counts=i32(1),
        tokens=i32(42), texts=["hé"], finish=u8(1), stop_reasons=["\n"], prompt_tokens=i32(2), cached_tokens=i32(16),
    ),
    m.RequestFailed(request_id="r", attempt=0, code=ErrorCode.QUEUE_FULL, message="full", retry_after=1.0),
    m.Cancel(request_ids=["r"], choices=i32(-1), attempts=i32(0)),
    m.Presence(service="gateway", instance="g", epoch=9, state=m.State.READY, attributes={"pid": 1}),
    m.Outdated(instance="g", epoch=9, quiet=0.5),
    m.WhoIsThere(),
    m.KvEvents(replica_id="r0", epoch=9, seq=0, block_size=16, stored=u64(2**64 - 1), removed=u64(1)),
    m.KvSnapshotRequest(),
    m.FlushCache(),
    m.CacheFlushed(pages_freed=3, pages_in_use=1),
]  # fmt: skip


def test_every_message_has_an_example() -> None:
    assert {type(example).TAG for example in EXAMPLES} == set(m.Message._registry)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.TAG)
def test_wire_format_is_pinned(message: m.Message) -> None:
    """A difference here breaks rolling upgrades: add fields with defaults, or raise the class's VERSION."""
    golden = json.loads(GOLDEN.read_text())
    assert m.pack(message).hex() == golden[message.TAG]
    assert m.unpack(bytes.fromhex(golden[message.TAG])) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.TAG)
def test_unknown_fields_are_ignored(message: m.Message) -> None:
    tag, version, fields = msgpack.unpackb(m.pack(message), strict_map_key=False)
    assert m.unpack(msgpack.packb([tag, version, {**fields, "added_in_a_later_release": [1, {"a": 2}]}])) == message


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (msgpack.packb({"a": 1}), r"\[tag, version, fields\]"),
        (msgpack.packb(["Nonsense", 1, {}]), "unknown message 'Nonsense'"),
        (msgpack.packb([["x"], 1, {}]), "unknown message"),
        (msgpack.packb(["Claim", 99, {}]), "Claim has version 99; this process speaks version 1"),
        (msgpack.packb(["Claim", 1, {"scheduler_id": "s", "replica_id": "r"}]), "Claim.epoch"),
        (msgpack.packb(["Claim", 1, {"scheduler_id": 1, "replica_id": "r", "epoch": 1}]), "Claim.scheduler_id"),
        (msgpack.packb(["StepPlan", 5, {"epoch": 1, "seq": 1, "releases": b"abc"}]), "no whole number of int32"),
        (msgpack.packb(["StepPlan", 5, {"epoch": 1, "seq": 1, "releases": "abc"}]), "StepPlan.releases"),
    ],
)
def test_foreign_bytes_are_refused_by_name(data: bytes, complaint: str) -> None:
    with pytest.raises(MessageError, match=complaint):
        m.unpack(data)


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        m.unpack(data)


@given(st.integers(0, len(EXAMPLES) - 1), st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_byte_does_harm(which: int, place: int, value: int) -> None:
    data = bytearray(m.pack(EXAMPLES[which]))
    data[place % len(data)] = value
    with contextlib.suppress(MessageError):
        m.unpack(bytes(data))


def test_columns_are_views_of_the_payload() -> None:
    report = m.unpack(m.pack(m.StepReport(epoch=1, seq=1, tokens=np.arange(5))))
    assert isinstance(report, m.StepReport)
    assert report.tokens.tolist() == [0, 1, 2, 3, 4]
    assert not report.tokens.flags.writeable


def test_spans_are_read_from_their_columns() -> None:
    plan = m.unpack(m.pack(next(example for example in EXAMPLES if isinstance(example, m.StepPlan))))
    assert isinstance(plan, m.StepPlan)
    assert list(plan.spans()) == [m.Span(1, 7, 1, True, 3), m.Span(0, 0, 2, False, 0)]
    with pytest.raises(ValueError, match="zip"):
        list(m.StepPlan(epoch=1, seq=0, span_slots=i32(1)).spans())


def test_what_must_be_prepared_has_one_key_for_equal_values() -> None:
    assert m.Work().needs() == ()
    assert m.Work(lora="a", priority=1).needs() == m.Work(lora="a", cache_salt="s").needs() == (m.Need("lora", "a"),)
    ((_, long),) = m.Work(lora="a" * 5000).needs()
    assert len(long) == 64
    assert m.Work(lora=long).needs() != m.Work(lora="a" * 5000).needs()  # nobody can name another's digest


def test_a_preparation_gets_the_field_that_it_is_about_and_no_other() -> None:
    assert WORK.only("lora") == m.Work(lora="l")
    assert WORK.only("lora").needs() == WORK.needs()

"""The scheduler's small parts, each alone."""

from typing import Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.services.scheduler.intake import CancelLog
from radixmesh.services.scheduler.memory.block_log import BlockLog
from radixmesh.services.scheduler.memory.pages import PageAllocator
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.services.scheduler.mesh.load import load_attributes
from radixmesh.services.scheduler.mesh.pairing import WorkerWatch, claimable, wrong_sizes
from radixmesh.services.scheduler.mesh.spans import QueueSpans
from radixmesh.services.scheduler.queue.waiting import FinishRate
from radixmesh.shared import telemetry
from radixmesh.shared.errors import ConfigError, ErrorCode
from radixmesh.shared.messages import Prepared, Presence, State
from radixmesh.shared.telemetry import Attr
from tests.scheduler.harness import EPOCH, Harness, admit_message, sizes

# -- pages --


def test_pages_are_taken_whole_or_not_at_all() -> None:
    pages = PageAllocator(4)
    assert sorted(pages.take(3)) == [0, 1, 2]
    with pytest.raises(IndexError, match="2 pages wanted, 1 free"):
        pages.take(2)
    assert pages.available == 1
    assert pages.take(0) == []


def test_the_books_name_what_is_wrong() -> None:
    pages = PageAllocator(4)
    taken = pages.take(3)
    assert pages.check(taken[:1], taken[1:]) == []
    assert pages.check([], taken[1:]) == [f"1 pages belong to nobody: [{taken[0]}]"]
    (doubled,) = pages.check(taken, taken[:1])
    assert "belong to several" in doubled
    assert "'cached', 'owned'" in doubled
    assert "do not exist: [9]" in pages.check([*taken, 9], [])[0]


# -- the queue --


def test_retry_after_follows_how_fast_sequences_end() -> None:
    rate = FinishRate()
    assert rate.seconds_for(100) == 1.0
    for second in range(10):
        rate.ended(second / 2)
    assert rate.seconds_for(10) == 5.0
    assert rate.seconds_for(1000) == 60.0


def test_the_log_of_early_cancels_is_bounded() -> None:
    log = CancelLog()
    for number in range(10_000):
        log.note(f"r{number}", -1, 0)
    assert not log.covers("r0", 0, 0)
    assert log.covers("r9999", 3, 0)
    assert not log.covers("r9999", 3, 1)
    log.note("r9999", 2, 4)
    assert log.covers("r9999", 2, 4)
    assert not log.covers("r9999", 1, 4)


# -- KV events --


def _hashes(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def test_the_last_change_of_a_block_is_told() -> None:
    log = BlockLog("r", EPOCH, 16)
    (first,) = log.take()
    assert (first.cleared, first.seq, first.stored.size, first.block_size) == (True, 0, 0, 16)
    assert list(log.take()) == []
    log.stored(_hashes(1, 2, 3))
    log.removed(_hashes(2))
    log.removed(_hashes(9))
    log.stored(_hashes(9))
    (events,) = log.take()
    assert (events.stored.tolist(), events.removed.tolist()) == ([1, 3, 9], [2])
    assert (events.cleared, events.seq) == (False, 1)


def test_a_snapshot_too_large_for_one_message_is_cut() -> None:
    tree = RadixTree(1, "lru", log := BlockLog("r", EPOCH, 1))
    count = (1 << 16) + 10
    tree.insert(tree.root(), np.arange(count, dtype=np.int32), [list(range(count))])
    list(log.take())
    log.snapshot(tree)
    messages = list(log.take())
    assert [(m.cleared, m.stored.size) for m in messages] == [(True, 1 << 16), (False, 10)]
    assert len({block for m in messages for block in m.stored.tolist()}) == count


# -- pairing --


def _worker(**attributes: Any) -> Presence:
    told = {"rank": 0, "group_id": "g", "replica": "", "claimed_by": ""} | attributes
    return Presence(service="model_worker", instance="w", epoch=3, state=State.READY, attributes=told)


@pytest.mark.parametrize(
    ("attributes", "replica", "wanted"),
    [
        ({}, "", True),
        ({"rank": 1}, "", False),
        ({"claimed_by": "other"}, "", False),
        ({"claimed_by": "me"}, "", True),
        ({"replica": "left"}, "", False),
        ({"replica": "me"}, "", True),
        ({"replica": "left"}, "left", True),
        ({}, "left", False),
    ],
)
def test_which_groups_may_be_claimed(attributes: dict[str, Any], replica: str, wanted: bool) -> None:
    assert bool(claimable([_worker(**attributes)], replica, "me")) is wanted


def test_sizes_that_cannot_be_are_named() -> None:
    assert wrong_sizes(sizes()) == ""
    assert wrong_sizes(sizes(max_slots=0)) == "its max_slots is 0"
    assert wrong_sizes(sizes(page_size=0)) == "group 0's page_size is 0"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _beats(watch: WorkerWatch, clock: Clock, planned: int, reported: int, **told: Any) -> str:
    """Five beats, a second apart; what the last one led to."""
    verdict = ""
    for _ in range(5):
        attributes = {"claimed_by": "me", "claim_epoch": EPOCH, "seq_epoch": EPOCH} | told
        verdict = watch.heard(_worker(**attributes), planned, reported)
        clock.now += 1.0
    return verdict


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"received_seq": 5, "reported_seq": 5}, ""),
        ({"received_seq": 4, "reported_seq": 3}, ""),
        ({"received_seq": 4, "reported_seq": 4}, "the plan behind number 4 was lost"),
        ({"received_seq": 5, "reported_seq": 4}, ""),
        ({"received_seq": 5, "reported_seq": 5, "claimed_by": ""}, "no longer works"),
        ({"received_seq": 5, "reported_seq": 5, "claim_epoch": 1}, "no longer works"),
        ({"received_seq": "?", "reported_seq": None}, "the plan behind number -1 was lost"),
        ({"received_seq": 58, "reported_seq": 57, "seq_epoch": EPOCH - 1}, ""),  # claimed in the middle of a step
        ({"received_seq": 4, "reported_seq": 4, "seq_epoch": EPOCH - 1}, ""),
        ({"received_seq": -1, "reported_seq": -1, "seq_epoch": -1}, ""),
        ({"received_seq": -1, "reported_seq": -1}, "the plan behind number -1 was lost"),
    ],
)
def test_what_heartbeats_say_of_plans(told: dict[str, Any], words: str) -> None:
    clock = Clock()
    watch = WorkerWatch(_worker(), "me", EPOCH, clock)
    verdict = _beats(watch, clock, planned=5, reported=5, **told)
    assert words in verdict if words else verdict == ""


def test_a_report_that_was_sent_and_never_came_is_lost() -> None:
    clock = Clock()
    watch = WorkerWatch(_worker(), "me", EPOCH, clock)
    assert "report behind number 3" in _beats(watch, clock, planned=5, reported=3, received_seq=5, reported_seq=4)


def test_a_backlog_of_old_heartbeats_is_no_loss() -> None:
    clock = Clock()
    watch = WorkerWatch(_worker(), "me", EPOCH, clock)
    stale = _worker(claimed_by="me", claim_epoch=EPOCH, seq_epoch=EPOCH, received_seq=1, reported_seq=1)
    assert watch.heard(stale, 1, 1) == ""
    clock.now += 30.0  # this process slept
    assert [watch.heard(stale, 3, 1) for _ in range(10)] == [""] * 10
    clock.now += 1.0
    fresh = _worker(claimed_by="me", claim_epoch=EPOCH, seq_epoch=EPOCH, received_seq=3, reported_seq=2)
    assert watch.heard(fresh, 3, 2) == ""
    clock.now += 10.0
    assert watch.heard(fresh, 3, 2) == ""


def test_a_worker_gone_or_restarted_is_lost() -> None:
    watch = WorkerWatch(_worker(), "me", EPOCH)
    assert "gone" in watch.lost(None)
    assert "restarted" in watch.lost(_worker().model_copy(update={"epoch": 4}))
    assert watch.lost(_worker()) == ""


# -- tracing --


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Gets every span that ends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "enabled", True)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    return exporter


def test_each_choice_has_a_span_from_arrival_to_its_slot(exporter: InMemorySpanExporter) -> None:
    spans = QueueSpans("r")
    core = SchedulerCore(SchedulerSettings(), sizes(), replica_id="r", epoch=EPOCH, watcher=spans)
    spans.parent = telemetry.context_from_traceparent("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
    core.admit(admit_message("a", list(range(1, 20)), n=2), 100.0)
    core.admit(admit_message("b", list(range(1, 20)), time_left=1.0), 100.0)
    core.tick(101.5)
    plan = core.next_plan(102.0)
    assert plan is not None
    (admission,) = plan.admissions  # the other choice waits for the prompt to be cached
    gone, queued = exporter.get_finished_spans()
    assert admission.traceparent == f"00-0123456789abcdef0123456789abcdef-{queued.context.span_id:016x}-01"
    assert (queued.name, queued.parent.span_id) == (telemetry.SPAN_QUEUE, 0x0123456789ABCDEF)  # type: ignore[union-attr]  # both are there
    told = queued.attributes
    assert told is not None
    assert (told[Attr.REQUEST_ID], told[Attr.CHOICE], told[Attr.REPLICA]) == ("a", 0, "r")
    assert (told[Attr.QUEUE_SECONDS], told[Attr.CACHED_TOKENS], told[Attr.INPUT_TOKENS]) == (2.0, 0, 19)
    assert gone.attributes is not None
    assert (gone.attributes[Attr.REQUEST_ID], gone.attributes[Attr.ERROR]) == ("b", "deadline_exceeded")


def test_the_span_tells_how_long_preparing_took(exporter: InMemorySpanExporter) -> None:
    spans = QueueSpans("r")
    core = SchedulerCore(SchedulerSettings(), sizes(loras=2), replica_id="r", epoch=EPOCH, watcher=spans)
    for name, lora in (("plain", ""), ("needy", "a"), ("bad", "b")):
        core.admit(admit_message(name, [1, 2, 3], lora=lora), 100.0)
    while core.next_prepare(100.0) is not None:
        pass
    core.next_plan(101.0)
    core.prepared(Prepared(epoch=EPOCH, number=1, code=ErrorCode.INTERNAL, seconds=0.5), 102.0)
    core.prepared(Prepared(epoch=EPOCH, number=0, seconds=2.5), 103.0)
    core.next_plan(104.0)
    plain, bad, needy = (span.attributes or {} for span in exporter.get_finished_spans())
    assert Attr.PREPARE_SECONDS not in plain
    assert bad[Attr.ERROR] == "internal_error"
    assert (needy[Attr.PREPARE_SECONDS], needy[Attr.QUEUE_SECONDS]) == (3.0, 4.0)
    assert load_attributes(core.replica)["prepare_seconds"] == 3.0


def test_without_tracing_there_are_no_spans() -> None:
    spans = QueueSpans("r")
    core = SchedulerCore(SchedulerSettings(), sizes(), replica_id="r", epoch=EPOCH, watcher=spans)
    core.admit(admit_message("a", [1, 2, 3]), 0.0)
    plan = core.next_plan(0.0)
    assert plan is not None
    assert plan.admissions[0].traceparent == ""
    assert not spans._spans


# -- settings, and what is told of the load --


def test_the_replica_is_the_instance() -> None:
    assert SchedulerSettings.load(["--replica", "left"]).instance_name("scheduler") == "left"
    assert SchedulerSettings.load(["--replica", "left", "--instance", "x"]).instance_name("scheduler") == "x"
    assert not SchedulerSettings.load(["--no-prefix-cache", "--policy", "dfs-weight"]).prefix_cache
    with pytest.raises(ConfigError, match="--pipeline-depth"):
        SchedulerSettings.load(["--pipeline-depth", "0"])


def test_totals_add_up() -> None:
    harness = Harness()
    for name in "ab":
        harness.admit(admit_message(name, list(range(1, 20)), max_tokens=5, ignore_eos=True))
        harness.run()
    counters = harness.core.replica.counters
    assert (counters.admitted, counters.finished, counters.output_tokens) == (2, 2, 10)
    assert (counters.prompt_tokens, counters.cached_tokens) == (38, 16)

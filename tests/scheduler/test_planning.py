"""Plans: how many are in flight, what one holds, and what a report may say of it."""

import pytest

from radixmesh.services.scheduler.core import HEAD_START
from radixmesh.services.scheduler.planning.reports import WorkerOutOfStep
from radixmesh.shared.messages import StepReport
from tests.scheduler.harness import EPOCH, Harness, admit_message, decodes, options, prompt, running, sizes
from tests.scheduler.simulator import STEP_US

# -- planning --


def test_two_plans_are_in_flight_and_no_more() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=20, ignore_eos=True))
    assert harness.pump() == 2
    assert [decodes(plan) for plan in harness.plans] == [[], [0]]
    assert harness.pump() == 0
    harness.work()
    harness.deliver()
    assert harness.pump() == 1


def test_without_planning_ahead_each_plan_waits_for_its_report() -> None:
    harness = Harness(options(pipeline_depth=1))
    harness.admit(admit_message("a", prompt(0, 6)))
    assert harness.pump() == 1
    harness.run()
    harness.verify()


def test_nothing_is_planned_past_the_end_by_length() -> None:
    harness = Harness(options(max_multi_step=4))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=7, ignore_eos=True))
    advances, pages = [], 0
    while harness.pump() or harness.plans or harness.reports:
        for plan in harness.plans:
            flight = next(flight for flight in harness.core.in_flight if flight.seq == plan.seq)
            advances += [flight.advance] * flight.decode_slots.size
            pages += len(plan.grant_pages)
        while harness.work():
            pass
        while harness.deliver():
            pass
    harness.verify()
    assert advances == [4, 2]  # the prompt gives the first token
    assert pages == 3  # 6 + 7 tokens, of which the last is never fed


def test_several_steps_are_granted_only_while_nobody_waits() -> None:
    harness = Harness(options(max_multi_step=8), sizes(max_slots=1))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=30, ignore_eos=True))
    harness.pump()
    assert harness.plans[-1].steps == 8
    harness.admit(admit_message("b", prompt(1, 6), max_tokens=4))
    harness.work()
    harness.deliver()
    harness.pump()
    assert harness.plans[-1].steps == 1
    harness.run()
    harness.verify()


@pytest.mark.parametrize(("budget_ms", "steps"), [(20.0, 4), (5.0, 1), (1.0, 1), (1000.0, 6), (0.0, 6)])
def test_several_steps_take_no_longer_than_a_newcomer_may_wait(budget_ms: float, steps: int) -> None:
    harness = Harness(options(max_multi_step=6, multi_step_ms=budget_ms, pipeline_depth=1))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=60, ignore_eos=True))
    granted = []
    while harness.pump():
        granted.append(harness.plans[-1].steps)
        harness.work()
        harness.deliver()
    harness.verify()
    assert STEP_US == 5000
    if budget_ms:
        assert granted[1] == 1  # how long a step takes is not known yet
    assert granted[3] == max(granted) == steps


def test_a_long_plan_is_followed_late_but_not_too_late() -> None:
    """By when it will be over, less the head start; at once when somebody comes, or when it was over early."""
    harness = Harness(options(max_multi_step=8, multi_step_ms=40.0))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=200, ignore_eos=True))
    core = harness.core
    while not core.in_flight or core.in_flight[-1].steps < 8:
        if not harness.pump():
            harness.work()
            harness.deliver()
    while len(core.in_flight) > 1:
        harness.work()
        harness.deliver()
    assert core.plan_delay(harness.now) == pytest.approx(8 * STEP_US / 1e6 - HEAD_START, abs=0.003)
    assert core.plan_delay(harness.now + 0.03) == 0.0
    harness.admit(admit_message("b", prompt(1, 6), max_tokens=4))
    assert core.plan_delay(harness.now) == 0.0
    harness.run()
    harness.verify()
    assert core.plan_delay(harness.now) == 0.0


# -- drafts --


def test_a_verify_pass_has_pages_for_all_that_may_be_accepted() -> None:
    """Also when the one before it is not reported yet; and what was not accepted is taken back, but no page."""
    harness = Harness(options(), sizes(page_size=1, max_drafts=3))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=30, ignore_eos=True))
    harness.pump()
    harness.work()
    harness.deliver()
    harness.pump()
    first, second = harness.plans
    assert [(span.start, span.drafts) for plan in (first, second) for span in plan.spans()] == [(6, 3), (10, 3)]
    assert [plan.grant_pages.size for plan in (first, second)] == [4, 4]
    harness.plans.clear()
    harness.core.report(_report(first.seq, accepted=[1], tokens=[5], finish=[0]), 0.0)
    harness.pump()
    (third,) = harness.plans
    assert [(span.start, span.drafts) for span in third.spans()] == [(11, 3)]  # 6, and one, and four
    assert third.grant_pages.size == 1


@pytest.mark.parametrize("accepted", [5, 9])
def test_a_report_of_more_than_the_drafts_ends_the_epoch(accepted: int) -> None:
    harness = Harness(options(), sizes(max_drafts=3))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=30, ignore_eos=True))
    harness.pump()
    harness.work()
    harness.deliver()
    with pytest.raises(WorkerOutOfStep):
        harness.core.report(_report(1, accepted=[accepted], tokens=[3] * accepted, finish=[0]), 0.0)


def test_drafts_are_given_up_before_a_sequence_is() -> None:
    """Two sequences that fill the memory but for a page: with drafts neither could go on."""
    harness = Harness(options(pipeline_depth=1, prefix_cache=False), sizes(num_pages=5, max_drafts=7))
    for name in ("a", "b"):
        harness.admit(admit_message(name, prompt(ord(name), 7), max_tokens=2, ignore_eos=True))
    drafts = []
    while harness.pump():
        drafts += [span.drafts for span in harness.plans[0].spans() if span.count == 1]
        harness.work()
        harness.deliver()
    harness.verify()
    assert drafts == [7, 7]  # neither may come further than its end
    for name in ("c", "d"):
        harness.admit(admit_message(name, prompt(ord(name), 7), max_tokens=12, ignore_eos=True))
    harness.pump()
    harness.work()
    harness.deliver()
    harness.pump()
    assert [span.drafts for span in harness.plans[0].spans()] == [0, 0]
    assert running(harness) == {"c", "d"}
    assert harness.core.replica.counters.retracted == 0
    harness.run()
    harness.verify()


def test_drafts_save_plans() -> None:
    plans = {}
    for drafts in (0, 4):
        harness = Harness(options(), sizes(max_drafts=drafts))
        for i in range(4):
            harness.admit(admit_message(f"r{i}", prompt(i, 9), max_tokens=60, ignore_eos=True))
        harness.run()
        harness.verify()
        plans[drafts] = harness.steps
    assert harness.worker.verified[True] > 20
    assert harness.worker.verified[False] > 20
    assert plans[4] < 0.7 * plans[0]


# -- prompts beside decodes --


def test_long_prompts_are_chunked_beside_decodes() -> None:
    harness = Harness(options(prefill_chunk=16, max_prefill_tokens=32), sizes(num_pages=256))
    harness.admit(admit_message("short", prompt(0, 8), max_tokens=60, ignore_eos=True))
    for _ in range(3):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.admit(admit_message("long", prompt(1, 100), max_tokens=4))
    chunks = []
    for _ in range(40):
        harness.pump()
        while harness.plans:
            plan = harness.plans[0]
            if prompts := [span.count for span in plan.spans() if span.count > 1]:
                chunks += prompts
                assert decodes(plan) == [0], "decodes wait for nobody's prompt"
            harness.work()
        while harness.deliver():
            pass
    harness.run()
    harness.verify()
    assert chunks == [12] * 8 + [4]  # 16 less one decode, in whole pages


def test_a_slot_given_back_goes_to_the_next_in_the_same_plan() -> None:
    harness = Harness(options(pipeline_depth=1), sizes(max_slots=1))
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=1))
    harness.admit(admit_message("b", prompt(1, 6), max_tokens=1))
    harness.pump()
    harness.work()
    harness.deliver()
    harness.pump()
    plan = harness.plans[-1]
    assert (plan.releases.tolist(), [a.request_id for a in plan.admissions]) == ([0], ["b"])
    harness.run()
    harness.verify()


# -- reports that are not what they should be --


def _report(seq: int, **columns: object) -> StepReport:
    return StepReport(epoch=EPOCH, seq=seq, **columns)


@pytest.mark.parametrize(
    "report",
    [
        _report(1),
        _report(0),
        _report(0, accepted=[1], tokens=[3]),
        _report(0, accepted=[1], finish=[0]),
        _report(0, accepted=[-1], tokens=[], finish=[0]),
        _report(0, accepted=[2], tokens=[3, 4], finish=[0]),
        _report(0, accepted=[1, 1], tokens=[3, 4], finish=[0, 0]),
        _report(0, accepted=[0], finish=[0], failed_slots=[0]),
        _report(0, accepted=[0], finish=[0], failed_slots=[-1], failures=["?"]),
        _report(0, accepted=[0], finish=[0], failed_slots=[99], failures=["?"]),
        _report(0, accepted=[0], finish=[0], failed_slots=[5], failures=["?"]),
    ],
)
def test_a_missing_or_broken_report_ends_the_epoch(report: StepReport) -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 8)))
    harness.pump()
    with pytest.raises(WorkerOutOfStep):
        harness.core.report(report, 0.0)


def test_reports_of_another_epoch_or_seen_before_are_dropped() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 8), max_tokens=30, ignore_eos=True))
    harness.pump()
    harness.work()
    first = harness.reports[0]
    harness.core.report(StepReport(epoch=EPOCH - 1, seq=0), 0.0)
    harness.deliver()
    harness.core.report(first, 0.0)
    harness.run()
    harness.verify()


def test_a_worker_that_does_not_end_a_sequence_does_not_hang_it() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 8), max_tokens=1, ignore_eos=True))
    harness.pump()
    harness.plans.clear()
    harness.core.report(_report(0, accepted=[1], tokens=[3], finish=[0]), 0.0)
    assert harness.core.next_plan(0.0) is None
    harness.core.tick(1.0)
    (effect,) = harness.core.take_effects()
    assert "limit of 9 tokens" in effect.message.message  # type: ignore[union-attr]  # a failure


def test_repair_starts_with_empty_books() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18)))
    harness.run()
    harness.core.replica.kv.pools[0].take(2)
    assert "2 pages belong to nobody" in harness.core.check()[0]
    harness.core.repair()
    assert harness.core.check() == []
    assert harness.core.replica.kv.free == 64
    harness.admit(admit_message("b", prompt(0, 18)))
    harness.run()
    harness.verify()

"""The scheduler's logic, case by case, against a simulated worker."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scheduler.harness import EPOCH, Harness, admit_message, sizes
from scheduler.simulator import STEP_US, VOCAB, expected_output

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.reports import WorkerOutOfStep
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Cancel, Finish, SamplingParams, StepReport, Task


def prompt(seed: int, length: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(1, VOCAB, length).astype(np.int32)


def options(**changes: object) -> SchedulerSettings:
    plain = {"warm_min_tokens": 1, "decode_headroom": 0, "max_multi_step": 1, "multi_step_ms": 0}
    return SchedulerSettings(**{**plain, **changes})  # type: ignore[arg-type]


def running(harness: Harness) -> set[str]:
    return {seq.request_id for seq in harness.core.state.slots.sequences()}


# -- refusals --


@pytest.mark.parametrize(
    ("tokens", "code", "words"),
    [
        ([], ErrorCode.INVALID_REQUEST, "no tokens"),
        ([5, VOCAB], ErrorCode.INVALID_REQUEST, str(VOCAB)),
        ([5, -1], ErrorCode.INVALID_REQUEST, "-1"),
        (range(1, 257), ErrorCode.CONTEXT_LENGTH_EXCEEDED, "256 tokens"),
    ],
)
def test_a_prompt_that_can_never_run_is_refused(tokens: list[int], code: ErrorCode, words: str) -> None:
    harness = Harness()
    with pytest.raises(RequestError, match=words) as caught:
        harness.admit(admit_message("a", list(tokens)))
    assert caught.value.code is code
    assert caught.value.param == "prompt"
    assert harness.core.idle


def test_a_prompt_larger_than_the_memory_is_refused_by_that_name() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=8, max_model_len=256))
    with pytest.raises(RequestError, match=r"33 tokens.*KV memory, 33 tokens"):
        harness.admit(admit_message("a", prompt(0, 33)))
    harness.admit(admit_message("b", prompt(0, 32), max_tokens=None))
    harness.run()
    harness.verify()


def test_memory_ends_an_output_that_it_cannot_hold() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=8, max_model_len=256))
    harness.admit(admit_message("a", prompt(0, 10), max_tokens=200, ignore_eos=True))
    harness.run()
    outcome = harness.outcomes["a", 0]
    assert (len(outcome.tokens), outcome.finish) == (23, Finish.LENGTH)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    harness = Harness(options(max_queued_requests=2))
    for name in "ab":
        harness.admit(admit_message(name, prompt(0, 5)))
    with pytest.raises(RequestError, match="2 sequences wait") as caught:
        harness.admit(admit_message("c", prompt(0, 5)))
    assert caught.value.code is ErrorCode.QUEUE_FULL
    assert caught.value.retry_after == 1.0
    harness.run()
    harness.verify()
    harness.admit(admit_message("d", prompt(0, 5)))
    harness.run()
    harness.verify()


def test_a_prompt_too_long_for_one_plan_fails_and_others_go_on() -> None:
    harness = Harness(claimed=sizes(num_pages=1024, max_model_len=4000))
    harness.core._planner._max_bytes = 4000
    harness.admit(admit_message("long", prompt(0, 2000)))
    harness.admit(admit_message("short", prompt(1, 20)))
    harness.run()
    harness.verify()
    assert [effect.message.code for effect in harness.failures()] == [ErrorCode.REQUEST_TOO_LARGE]


def test_plans_stay_within_their_bytes() -> None:
    harness = Harness(claimed=sizes(num_pages=512, max_slots=8))
    harness.core._planner._max_bytes = 4000
    for i in range(8):
        harness.admit(admit_message(f"r{i}", prompt(i, 150)))
    harness.pump()
    assert [len(plan.admissions) for plan in harness.plans] == [2, 2]
    harness.run()
    harness.verify()


# -- the prefix cache --


def test_cached_tokens_are_exact() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18), max_tokens=8, ignore_eos=True))
    harness.run()
    harness.admit(admit_message("b", prompt(0, 18), max_tokens=1))
    harness.admit(admit_message("c", prompt(0, 16), max_tokens=1))
    told = np.concatenate([prompt(0, 18), harness.outcomes["a", 0].tokens, [7]]).astype(np.int32)
    harness.admit(admit_message("d", told, max_tokens=1))
    harness.admit(admit_message("e", prompt(0, 18), max_tokens=1, salt="other"))
    harness.run()
    harness.verify()
    cached = {name: harness.outcomes[name, 0].cached[0] for name in "abcde"}
    # 18 tokens fill 4 pages of 4; of 16 tokens the last must be computed; 18 + 8 - 1 tokens of a have KV: 6 pages
    assert cached == {"a": 0, "b": 16, "c": 12, "d": 24, "e": 0}


def test_choices_of_one_request_share_its_prompt() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 30), n=4))
    harness.run()
    harness.verify()
    assert [harness.outcomes["a", choice].cached[0] for choice in range(4)] == [0, 28, 28, 28]


def test_waiting_prompts_let_one_warm_their_common_prefix() -> None:
    harness = Harness(options(prefill_chunk=16, max_prefill_tokens=16), sizes(num_pages=256))
    shared = prompt(0, 64)
    for i in range(6):
        harness.admit(admit_message(f"r{i}", np.concatenate([shared, prompt(i + 1, 5)])))
    harness.run()
    harness.verify()
    assert harness.core.state.counters.cached_tokens == 5 * 64


def test_a_warmer_that_goes_away_holds_nobody_up() -> None:
    harness = Harness(options(prefill_chunk=8, max_prefill_tokens=8), sizes(num_pages=256))
    shared = prompt(0, 64)
    harness.admit(admit_message("first", shared))
    harness.admit(admit_message("second", shared))
    harness.pump()
    assert running(harness) == {"first"}
    harness.cancel("first")
    harness.run()
    harness.verify()
    assert harness.outcomes["second", 0].finish is not Finish.RUNNING


def test_without_the_cache_nothing_is_kept() -> None:
    harness = Harness(options(prefix_cache=False))
    for name in "ab":
        harness.admit(admit_message(name, prompt(0, 30), n=2))
        harness.run()
    harness.verify()
    assert harness.core.state.counters.cached_tokens == 0
    assert harness.core.state.kv.free == 64


def test_flush_frees_what_nobody_uses() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18)))
    harness.run()
    harness.admit(admit_message("b", prompt(1, 18), max_tokens=100, ignore_eos=True))
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    cached = harness.core.state.kv.tree.evictable
    freed, used = harness.core.flush()
    assert freed == cached > 0
    assert used > 0
    harness.run()
    harness.verify()


def test_prompts_whose_kv_depends_on_their_length_share_only_with_their_like() -> None:
    claimed = sizes().model_copy(update={"length_keyed_above": 20})
    harness = Harness(claimed=claimed)
    for name, length in (("a", 16), ("b", 20), ("c", 24), ("d", 28), ("e", 28)):
        harness.admit(admit_message(name, prompt(0, length), max_tokens=1))
        harness.run()
    assert [harness.outcomes[name, 0].cached[0] for name in "abcde"] == [0, 16, 0, 0, 24]


# -- planning --


def test_two_plans_are_in_flight_and_no_more() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 6), max_tokens=20, ignore_eos=True))
    assert harness.pump() == 2
    assert [plan.decode_slots.tolist() for plan in harness.plans] == [[], [0]]
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
            advances += flight.advance.tolist()
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
            if plan.prefill_counts.size:
                chunks += plan.prefill_counts.tolist()
                assert plan.decode_slots.tolist() == [0], "decodes wait for nobody's prompt"
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


# -- memory pressure --


def test_memory_pressure_retracts_the_youngest_and_loses_nothing() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=24, max_slots=6))
    for i in range(6):
        harness.admit(admit_message(f"r{i}", prompt(i, 8), max_tokens=60, ignore_eos=True))
    harness.run()
    harness.verify()
    assert harness.core.state.counters.retracted > 0
    assert len(set(harness.outcomes["r0", 0].cached)) == 1, "the oldest was retracted"


def test_a_retracted_sequence_waits_for_the_tokens_that_are_under_way() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=6, max_slots=2))
    harness.admit(admit_message("old", prompt(0, 4), max_tokens=18, ignore_eos=True))
    harness.admit(admit_message("young", prompt(1, 4), max_tokens=18, ignore_eos=True))
    while not harness.core.state.counters.retracted:
        harness.pump()
        harness.work()
        harness.deliver()
    young = next(iter(harness.core.state.queue))
    assert young.request_id == "young"
    assert young.ready_after >= harness.core.state.reported_seq
    harness.run()
    harness.verify()


# -- policies --


def _order(harness: Harness) -> list[str]:
    """Requests by their first token."""
    return list(dict.fromkeys(row.request_id for row in harness.worker.rows))


def test_fcfs_goes_by_arrival() -> None:
    harness = Harness(options(policy="fcfs"), sizes(max_slots=1))
    for name in "cab":
        harness.admit(admit_message(name, prompt(ord(name), 8), max_tokens=2))
    harness.run()
    assert _order(harness) == ["c", "a", "b"]


def test_lpm_goes_by_cached_prefix() -> None:
    harness = Harness(options(policy="lpm"), sizes(max_slots=1))
    harness.admit(admit_message("warm", prompt(0, 40), max_tokens=1))
    harness.run()
    harness.admit(admit_message("none", prompt(1, 40), max_tokens=2))
    harness.admit(admit_message("some", np.concatenate([prompt(0, 40)[:12], prompt(2, 20)]), max_tokens=2))
    harness.admit(admit_message("most", prompt(0, 40)[:30], max_tokens=2))
    harness.run()
    assert _order(harness) == ["warm", "most", "some", "none"]


def test_dfs_weight_goes_down_the_busiest_branch() -> None:
    harness = Harness(options(policy="dfs-weight"), sizes(max_slots=1))
    for name, seed in (("x", 0), ("y", 1)):
        harness.admit(admit_message(name, prompt(seed, 16), max_tokens=1))
        harness.run()

    def on(seed: int, own: int) -> NDArray[np.int32]:
        return np.concatenate([prompt(seed, 16), prompt(own, 6)])

    prompts = {"lone": prompt(9, 22), "x1": on(0, 11), "y1": on(1, 12), "y2": on(1, 13), "y3": on(1, 14)}
    for name, tokens in prompts.items():
        harness.admit(admit_message(name, tokens, max_tokens=2))
    harness.run()
    assert _order(harness)[2:4] == ["y1", "y2"]


def test_priority_preempts_and_the_preempted_go_on_where_they_were() -> None:
    harness = Harness(options(policy="priority"), sizes(max_slots=2))
    for name in ("low1", "low2"):
        harness.admit(admit_message(name, prompt(ord(name[-1]), 8), max_tokens=40, ignore_eos=True))
    for _ in range(6):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.admit(admit_message("high", prompt(1, 8), max_tokens=4, priority=5))
    harness.work()
    harness.deliver()
    harness.pump()
    assert running(harness) == {"low1", "high"}
    harness.run()
    harness.verify()


def test_what_has_waited_long_goes_first_and_stays() -> None:
    harness = Harness(options(policy="priority", starvation_seconds=5.0), sizes(max_slots=1))
    harness.admit(admit_message("busy", prompt(0, 8), max_tokens=30, ignore_eos=True, priority=9))
    harness.pump()
    harness.admit(admit_message("old", prompt(1, 8), max_tokens=20, ignore_eos=True))
    harness.now = 6.0
    harness.core.tick(harness.now)
    harness.admit(admit_message("new", prompt(2, 8), max_tokens=2, priority=9))
    harness.run()
    harness.verify()
    assert _order(harness) == ["busy", "old", "new"]
    rows = [row.request_id for row in harness.worker.rows]
    assert "new" not in rows[: len(rows) - 1 - rows[::-1].index("old")]


# -- ends --


@pytest.mark.parametrize("moves", range(9))
def test_a_cancel_at_any_moment_gives_everything_back(moves: int) -> None:
    harness = Harness(options(prefill_chunk=8, max_prefill_tokens=8))
    harness.admit(admit_message("a", prompt(0, 20), max_tokens=60, ignore_eos=True, n=2))
    harness.admit(admit_message("b", prompt(1, 20), max_tokens=10))
    for _ in range(moves):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.cancel("a")
    slots = [slot for slot, state in harness.worker.slots.items() if state.admission.request_id == "a"]
    planned = len(harness.plans)
    harness.pump()
    released = [slot for plan in list(harness.plans)[planned:] for slot in plan.releases.tolist()]
    assert set(slots) <= set(released) or not harness.core.in_flight or len(harness.core.in_flight) == 2
    harness.run()
    harness.verify()
    assert not harness.worker.slots


def test_one_choice_can_be_cancelled_alone() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 20), max_tokens=30, ignore_eos=True, n=3))
    for _ in range(5):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.cancel("a", 1)
    harness.run()
    harness.verify()
    assert [harness.outcomes["a", i].finish for i in range(3)] == [Finish.LENGTH, Finish.RUNNING, Finish.LENGTH]


def test_a_cancel_that_overtakes_its_request_holds() -> None:
    harness = Harness()
    early = Cancel(request_ids=["a"], choices=np.array([-1]), attempts=np.array([0]))
    harness.core.cancel(early, 0.0)
    harness.admit(admit_message("a", prompt(0, 8)))
    assert harness.core.idle
    harness.admit(admit_message("a", prompt(0, 8), attempt=1))
    harness.run()
    harness.verify()
    assert harness.outcomes["a", 0].finish is not Finish.RUNNING


def test_a_cancel_of_an_older_attempt_spares_the_newer() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 8), attempt=2))
    harness.core.cancel(Cancel(request_ids=["a"], choices=np.array([-1]), attempts=np.array([1])), 0.0)
    harness.run()
    harness.verify()


def test_a_newer_attempt_replaces_the_older_and_goes_on_where_it_was() -> None:
    harness = Harness()
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    wanted, _ = expected_output(prompt(0, 9), params, 0, 256)
    harness.admit(admit_message("a", prompt(0, 9), max_tokens=20, ignore_eos=True))
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.outcomes.clear()
    harness.admit(
        admit_message("a", prompt(0, 9), max_tokens=20, ignore_eos=True, attempt=1, resumed=wanted[:7])
    )
    harness.admit(admit_message("a", prompt(0, 9), max_tokens=20, ignore_eos=True, attempt=0))
    harness.admits["a"] = admit_message(
        "a", prompt(0, 9), max_tokens=20, ignore_eos=True, attempt=1, resumed=wanted[:7]
    )
    harness.plans, plans = type(harness.plans)(), harness.plans
    while plans:
        harness.reports.append(harness.worker.run(plans.popleft()))  # what the old attempt had under way
    harness.run()
    harness.verify()
    assert harness.outcomes["a", 0].tokens == wanted[7:]


def test_a_choice_that_is_complete_already_is_told_to_the_detokenizer() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 9), max_tokens=3, resumed=[4, 5, 6]))
    assert harness.core.idle
    harness.run()
    (effect,) = harness.completions()
    batch = effect.message
    assert (effect.detokenizer_id, batch.request_ids, batch.epoch) == ("dt", ["a"], EPOCH)
    assert (batch.first_index.tolist(), batch.counts.tolist(), batch.finish.tolist()) == ([3], [0], [Finish.LENGTH])


def test_a_deadline_in_the_queue_fails_the_request_once() -> None:
    harness = Harness(claimed=sizes(max_slots=1))
    harness.admit(admit_message("busy", prompt(0, 8), max_tokens=20))
    harness.pump()
    harness.admit(admit_message("late", prompt(1, 8), deadline=5.0, n=3))
    harness.core.tick(4.9)
    assert not harness.core.take_effects()
    harness.core.tick(5.1)
    harness.run()
    harness.verify()
    (effect,) = harness.failures()
    assert (effect.gateway_id, effect.message.code, effect.message.choice) == ("gw", ErrorCode.DEADLINE_EXCEEDED, -1)
    assert ("late", 0) not in harness.outcomes


def test_a_failed_slot_fails_its_choice_and_no_other() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 20), max_tokens=30, ignore_eos=True, n=2))
    for _ in range(5):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.worker.fail_slots.add(1)
    harness.run()
    harness.verify()
    (effect,) = harness.failures()
    assert (effect.message.code, effect.message.choice) == (ErrorCode.INTERNAL, 1)
    assert "the test wanted it" in effect.message.message


def test_a_late_failure_of_a_slot_is_not_its_next_holders() -> None:
    harness = Harness(claimed=sizes(max_slots=1))
    harness.admit(admit_message("a", prompt(0, 8), max_tokens=30, ignore_eos=True))
    harness.admit(admit_message("b", prompt(1, 8), max_tokens=5))
    harness.pump()
    harness.work()
    harness.deliver()
    harness.worker.fail_slots.add(0)
    harness.work()  # plan 1: slot 0, still a's, fails
    harness.cancel("a")
    harness.pump()
    assert harness.plans[-1].admissions[0].request_id == "b"
    harness.run()
    harness.verify()
    assert harness.failures() == []
    assert harness.outcomes["b", 0].finish is not Finish.RUNNING


def test_losing_the_worker_fails_each_request_once() -> None:
    harness = Harness(claimed=sizes(max_slots=2))
    for name in "abc":
        harness.admit(admit_message(name, prompt(0, 8), n=2))
    harness.pump()
    harness.core.lost("the worker is gone", 1.0)
    failed = [effect.message for effect in harness.core.take_effects()]
    assert [(m.request_id, m.choice, m.code) for m in failed] == [(n, -1, ErrorCode.REPLICA_LOST) for n in "abc"]
    harness.core.lost("again", 1.0)
    assert harness.core.take_effects() == []


def test_a_gateway_that_is_gone_takes_its_requests_along() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 8), gateway="dead", max_tokens=60))
    harness.admit(admit_message("b", prompt(1, 8)))
    harness.pump()
    harness.core.gateway_gone("dead", 0.0)
    harness.run()
    harness.verify()
    assert [effect.gateway_id for effect in harness.failures()] == ["dead"]


def test_draining_hands_back_what_has_not_begun() -> None:
    harness = Harness(claimed=sizes(max_slots=1))
    harness.admit(admit_message("a", prompt(0, 8)))
    harness.admit(admit_message("b", prompt(1, 8)))
    harness.pump()
    harness.core.hand_back_waiting("ending", 0.0)
    harness.run()
    harness.verify()
    assert [effect.message.request_id for effect in harness.failures()] == ["b"]


def test_a_task_without_tokens_ends_with_its_prompt() -> None:
    harness = Harness(options(prefill_chunk=8, max_prefill_tokens=8))
    harness.admit(admit_message("a", prompt(0, 20), task=Task.EMBED))
    harness.pump()
    while harness.plans:
        assert not harness.plans[0].decode_slots.size
        plan = harness.plans.popleft()
        harness.core.report(StepReport(epoch=EPOCH, seq=plan.seq), 0.0)
        harness.pump()
    assert harness.core.idle
    assert harness.core.check() == []


# -- reports that are not what they should be --


def _report(seq: int, **columns: object) -> StepReport:
    return StepReport(epoch=EPOCH, seq=seq, **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "report",
    [
        _report(1),
        _report(0, slots=[0], counts=[1], tokens=[3]),
        _report(0, slots=[0], counts=[2], tokens=[3], finish=[0]),
        _report(0, slots=[0], counts=[-1], tokens=[], finish=[0]),
        _report(0, slots=[99], counts=[1], tokens=[3], finish=[0]),
        _report(0, slots=[5], counts=[1], tokens=[3], finish=[0]),
        _report(0, failed_slots=[0]),
        _report(0, failed_slots=[-1], failures=["?"]),
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
    harness.core.report(_report(0, slots=[0], counts=[1], tokens=[3], finish=[0]), 0.0)
    assert harness.core.next_plan(0.0) is None
    harness.core.tick(1.0)
    (effect,) = harness.core.take_effects()
    assert "limit of 9 tokens" in effect.message.message  # type: ignore[union-attr]


def test_repair_starts_with_empty_books() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18)))
    harness.run()
    harness.core.state.kv._pages.take(2)
    assert "2 pages belong to nobody" in harness.core.check()[0]
    harness.core.repair()
    assert harness.core.check() == []
    assert harness.core.state.kv.free == 64
    harness.admit(admit_message("b", prompt(0, 18)))
    harness.run()
    harness.verify()

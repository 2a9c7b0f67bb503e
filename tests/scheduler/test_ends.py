"""How a sequence ends: cancels, newer attempts, deadlines, failures, draining."""

import numpy as np
import pytest

from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Cancel, Finish, SamplingParams
from tests.scheduler.harness import EPOCH, Harness, admit_message, options, prompt, sizes
from tests.scheduler.simulator import expected_output


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
    harness.admit(admit_message("a", prompt(0, 9), max_tokens=20, ignore_eos=True, attempt=1, resumed=wanted[:7]))
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
    harness.admit(admit_message("late", prompt(1, 8), time_left=5.0, n=3))
    harness.core.tick(4.9)
    assert not harness.core.take_effects()
    harness.core.tick(5.1)
    harness.run()
    harness.verify()
    (effect,) = harness.failures()
    assert (effect.gateway_id, effect.message.code, effect.message.choice) == ("gw", ErrorCode.DEADLINE_EXCEEDED, -1)
    assert ("late", 0) not in harness.outcomes


def test_a_wait_in_the_queue_can_have_a_limit_of_its_own() -> None:
    harness = Harness(options(queue_timeout=5.0), sizes(max_slots=1))
    for request_id, seed in (("a", 0), ("b", 1)):
        harness.admit(admit_message(request_id, prompt(seed, 9), max_tokens=4, ignore_eos=True))
    harness.pump()
    harness.core.tick(4.9)
    assert not harness.failures()
    harness.core.tick(5.1)
    harness.effects += harness.core.take_effects()
    assert [(e.message.request_id, e.message.code) for e in harness.failures()] == [("b", ErrorCode.DEADLINE_EXCEEDED)]
    assert "5 s in the queue" in harness.failures()[0].message.message
    harness.run()
    harness.verify()


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

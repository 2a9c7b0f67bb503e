"""Who is let in: the bound on the queue, and who leaves a full one for whom."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Finish
from tests.scheduler.harness import Harness, admit_message, options, prompt, running, sizes


def _offer(harness: Harness, name: str, *, n: int = 1, priority: int = 0, tokens: int = 6) -> RequestError | None:
    """Admits a request that runs on for long; returns how it was refused, if it was."""
    number = len(harness.admits)
    try:
        harness.admit(
            admit_message(name, prompt(number, tokens), n=n, priority=priority, max_tokens=30, ignore_eos=True)
        )
    except RequestError as error:
        return error
    finally:
        harness.effects += harness.core.take_effects()
    return None


def _displaced(harness: Harness) -> list[str]:
    return [e.message.request_id for e in harness.failures() if e.message.code is ErrorCode.QUEUE_FULL]


def _waiting(harness: Harness) -> list[str]:
    return [seq.request_id for seq in harness.core.state.queue]


def _step(harness: Harness) -> None:
    harness.pump()
    harness.work()
    harness.deliver()


# -- the bound --


@pytest.mark.parametrize(("slots", "limit"), [(8, 2), (1, 1), (3, 5)])
def test_idle_slots_are_no_queue(slots: int, limit: int) -> None:
    """A burst is let in whole as far as slots and queue suffice, though nobody has looked at it yet."""
    harness = Harness(options(max_queued_requests=limit), sizes(max_slots=slots, num_pages=256))
    for number in range(slots + limit):
        assert _offer(harness, f"r{number}") is None
    refused = _offer(harness, "late")
    assert refused is not None
    assert (refused.code, refused.retry_after) == (ErrorCode.QUEUE_FULL, 1.0)
    assert f"{slots + limit} sequences wait" in refused.message
    harness.pump()
    assert (harness.core.state.slots.running, len(_waiting(harness))) == (slots, limit)
    assert _offer(harness, "later") is not None
    harness.run()
    harness.verify()
    assert _offer(harness, "at last") is None


def test_slots_that_may_not_be_used_do_not_count() -> None:
    harness = Harness(options(max_queued_requests=1, max_running_requests=2), sizes(max_slots=8))
    assert [_offer(harness, f"r{i}") is None for i in range(4)] == [True, True, True, False]


def test_who_waits_for_memory_beside_free_slots_counts_as_if_it_had_one() -> None:
    harness = Harness(options(max_queued_requests=2), sizes(page_size=4, num_pages=12, max_slots=4))
    assert _offer(harness, "large", tokens=40) is None
    _step(harness)
    assert [_offer(harness, f"r{i}", tokens=20) is None for i in range(6)] == [True] * 5 + [False]
    harness.pump()
    assert harness.core.state.slots.free
    harness.run()
    harness.verify()


def test_one_that_goes_back_to_the_queue_has_its_place_there() -> None:
    harness = Harness(options(max_queued_requests=1), sizes(page_size=4, num_pages=10, max_slots=4))
    for number in range(4):
        assert _offer(harness, f"r{number}", tokens=4) is None
    while not harness.core.state.counters.retracted:
        _step(harness)
    assert _offer(harness, "r4", tokens=4) is None
    assert _offer(harness, "r5", tokens=4) is not None
    harness.run()
    harness.verify()
    assert not harness.failures()


# -- several choices --


@pytest.mark.parametrize(("n", "fits"), [(12, True), (13, False), (100, False)])
def test_choices_are_counted_before_they_are_let_in(n: int, fits: bool) -> None:
    harness = Harness(options(max_queued_requests=4), sizes(max_slots=8, num_pages=256))
    refused = _offer(harness, "a", n=n)
    assert (refused is None) is fits
    assert len(_waiting(harness)) == (n if fits else 0)
    if refused is not None:
        assert (refused.code, refused.param, refused.retry_after) == (ErrorCode.QUEUE_FULL, "n", None)
        assert refused.message == f"{n} choices are more than this replica ever takes in: it runs 8 and lets 4 wait"
        assert harness.core.idle


def test_choices_come_in_together_or_not_at_all() -> None:
    harness = Harness(options(max_queued_requests=2), sizes(max_slots=2))
    assert _offer(harness, "a", n=2) is None
    refused = _offer(harness, "b", n=3)
    assert refused is not None
    assert refused.retry_after is not None
    assert _waiting(harness) == ["a", "a"]
    assert _offer(harness, "c", n=2) is None


def test_a_newer_attempt_needs_no_second_place() -> None:
    harness = Harness(options(max_queued_requests=1), sizes(max_slots=1))
    assert _offer(harness, "a") is None
    assert _offer(harness, "b") is None
    harness.admit(admit_message("b", prompt(1, 6), attempt=1))
    assert [seq.attempt for seq in harness.core.state.queue] == [0, 1]
    harness.core.check()


def test_what_is_complete_already_needs_no_place() -> None:
    harness = Harness(options(max_queued_requests=1), sizes(max_slots=1))
    for name in "ab":
        assert _offer(harness, name) is None
    harness.admit(admit_message("done", prompt(0, 9), max_tokens=2, resumed=[4, 5]))
    assert [effect.message.request_ids for effect in harness.core.take_effects()] == [["done"]]  # type: ignore[union-attr]


# -- priorities --


def _by_priority(slots: int = 1, limit: int = 2, **changes: Any) -> Harness:
    settings = options(policy="priority", max_queued_requests=limit, **changes)
    return Harness(settings, sizes(max_slots=slots, num_pages=256))


def test_a_full_queue_gives_its_lowest_for_a_higher_one() -> None:
    harness = _by_priority()
    for name, priority in (("running", 3), ("low", 1), ("lower", 0)):
        assert _offer(harness, name, priority=priority) is None
        harness.pump()
    assert _offer(harness, "same", priority=0) is not None
    assert _displaced(harness) == []
    assert _offer(harness, "higher", priority=2) is None
    assert _displaced(harness) == ["lower"]
    (told,) = harness.failures()
    assert (told.message.choice, told.message.retry_after) == (-1, 1.0)
    assert "higher priority" in told.message.message
    assert _waiting(harness) == ["higher", "low"]
    harness.run()
    harness.verify()


def test_of_equals_the_last_that_came_goes() -> None:
    harness = _by_priority(limit=3)
    for name in ("running", "first", "second", "third"):
        assert _offer(harness, name) is None
        harness.pump()
    assert _offer(harness, "high", n=2, priority=1) is None
    assert _displaced(harness) == ["third", "second"]


def test_enough_must_give_way_or_nobody_does() -> None:
    harness = _by_priority(limit=3)
    for name, priority in (("running", 9), ("high", 5), ("high too", 5), ("low", 0)):
        assert _offer(harness, name, priority=priority) is None
        harness.pump()
    assert _offer(harness, "two", n=2, priority=4) is not None
    assert _displaced(harness) == []
    assert _waiting(harness) == ["high", "high too", "low"]


def test_a_request_goes_with_all_its_choices() -> None:
    harness = _by_priority(limit=3)
    assert _offer(harness, "running") is None
    harness.pump()
    assert _offer(harness, "low", n=3) is None
    assert _offer(harness, "high", priority=1) is None
    assert _displaced(harness) == ["low"]
    assert _waiting(harness) == ["high"]


def test_each_request_that_goes_counts_once() -> None:
    harness = _by_priority(limit=3)
    for name, n in (("running", 1), ("one", 1), ("two", 2)):
        assert _offer(harness, name, n=n) is None
        harness.pump()
    assert _offer(harness, "high", n=3, priority=1) is None
    assert _displaced(harness) == ["two", "one"]
    assert _waiting(harness) == ["high"] * 3


def test_a_newer_attempt_does_not_displace_its_own_older_one() -> None:
    harness = _by_priority(limit=2)
    for name in ("running", "low", "again"):
        assert _offer(harness, name) is None
        harness.pump()
    harness.admit(admit_message("again", prompt(1, 6), attempt=1, priority=5, n=2))
    harness.effects += harness.core.take_effects()
    assert _displaced(harness) == ["low"]
    assert _waiting(harness) == ["again", "again"]


@pytest.mark.parametrize(("priority", "comes_in"), [(9, False), (10, True)])
def test_a_request_that_runs_in_part_goes_only_for_whom_it_would_be_preempted(priority: int, comes_in: bool) -> None:
    harness = _by_priority(limit=1)
    assert _offer(harness, "half", n=2) is None
    harness.pump()
    assert (_offer(harness, "high", priority=priority) is None) is comes_in
    assert _displaced(harness) == (["half"] if comes_in else [])
    harness.run()
    harness.verify()


def test_what_has_waited_long_is_not_displaced() -> None:
    harness = _by_priority(limit=1, starvation_seconds=5.0)
    for name in ("running", "old"):
        assert _offer(harness, name) is None
        harness.pump()
    harness.now = 6.0
    harness.core.tick(harness.now)
    assert _offer(harness, "high", priority=99) is not None
    assert _waiting(harness) == ["old"]


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "dfs-weight"])
def test_other_policies_know_no_priority(policy: str) -> None:
    harness = Harness(options(policy=policy, max_queued_requests=1), sizes(max_slots=1))
    for name in "ab":
        assert _offer(harness, name) is None
        harness.pump()
    assert _offer(harness, "c", priority=1000) is not None
    assert running(harness) == {"a"}


@pytest.mark.parametrize(
    ("threshold", "priority", "who"), [(10, 9, "low"), (10, 10, "high"), (1, 1, "high"), (3, 2, "low")]
)
def test_a_running_one_gives_way_from_a_difference_on(threshold: int, priority: int, who: str) -> None:
    harness = _by_priority(preemption_threshold=threshold)
    assert _offer(harness, "low") is None
    for _ in range(3):
        _step(harness)
    assert _offer(harness, "high", priority=priority) is None
    for _ in range(3):
        _step(harness)
    assert running(harness) == {who}
    harness.run()
    harness.verify()
    assert not harness.failures()


# -- whatever happens --

_actions = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 3), st.integers(0, 4)),
        st.tuples(st.just("offer"), st.just(1), st.integers(0, 4)),
        st.tuples(st.just("offer"), st.just(1), st.integers(0, 4)),
        st.tuples(st.just("go"), st.integers(1, 3), st.none()),
        st.tuples(st.just("pump"), st.none(), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.integers(-1, 2)),
        st.tuples(st.just("tick"), st.integers(1, 100), st.none()),
    ),
    min_size=10,
    max_size=40,
)


def _last_of(seqs: list[Sequence], harness: Harness) -> tuple[int, int]:
    return max((harness.core.state.policy.level(seq), seq.order) for seq in seqs)


def _offer_and_judge(harness: Harness, n: int, priority: int) -> None:
    """Admits, and compares what became of everyone with what the rule says, whichever way it was found."""
    state, name = harness.core.state, f"r{len(harness.admits)}"
    before = {request: list(choices.values()) for request, choices in state.live.items()}
    waiting = {
        request: _last_of(seqs, harness) for request, seqs in before.items() if all(seq.slot < 0 for seq in seqs)
    }
    taken, told = state.taken, len(_displaced(harness))
    refused = _offer(harness, name, n=n, priority=priority)
    displaced = _displaced(harness)[told:]
    if taken + n <= state.capacity:
        assert refused is None
        assert not displaced
    elif refused is not None:
        assert refused.code is ErrorCode.QUEUE_FULL
        assert not displaced
        assert set(state.live) == set(before)
        lower = [before[r] for r in waiting if all(state.policy.level(seq) > -priority for seq in before[r])]
        assert not state.policy.by_priority or taken + n - sum(map(len, lower)) > state.capacity
    else:
        assert displaced
        assert state.policy.by_priority
        assert len(set(displaced)) == len(displaced)
        for request in displaced:
            assert all(seq.work.priority < priority and not seq.promoted for seq in before[request])
        worst_left = [last for request, last in waiting.items() if request in state.live]
        first_gone = min((waiting[request] for request in displaced if request in waiting), default=None)
        assert first_gone is None or not worst_left or max(worst_left) < first_gone
        assert taken + n - sum(len(before[request]) for request in displaced[:-1]) > state.capacity


@given(
    policy=st.sampled_from(["priority", "priority", "fcfs"]),
    threshold=st.integers(1, 3),
    limit=st.integers(1, 4),
    slots=st.integers(1, 3),
    pages=st.integers(10, 60),
    starvation=st.sampled_from([0.05, 10.0]),
    actions=_actions,
)
def test_the_bound_holds_and_each_request_ends_once(
    policy: str, threshold: int, limit: int, slots: int, pages: int, starvation: float, actions: list[Any]
) -> None:
    settings = options(
        policy=policy, preemption_threshold=threshold, max_queued_requests=limit, starvation_seconds=starvation
    )
    harness = Harness(settings, sizes(page_size=4, num_pages=pages, max_slots=slots))
    state = harness.core.state
    for what, first, second in actions:
        if what == "offer":
            _offer_and_judge(harness, first, second)
        elif what == "go":
            for _ in range(first):
                _step(harness)
                harness.now += 0.01
        elif what == "pump":
            harness.pump()
        elif what == "cancel" and harness.admits:
            harness.cancel(list(harness.admits)[first % len(harness.admits)], second)
        elif what == "tick":
            harness.now += first / 100
            harness.core.tick(harness.now)
        assert state.taken <= slots + limit
        assert state.slots.free or len(state.queue) <= limit
    harness.run(limit=20_000)
    harness.verify()
    ends = [(e.message.request_id, e.message.choice) for e in harness.failures()]
    assert len(set(ends)) == len(ends)
    told = {request for request, choice in ends if choice < 0}
    for name, message in harness.admits.items():
        for choice in range(message.work.params.n):
            outcome = harness.outcomes.get((name, choice))
            finished = outcome is not None and outcome.finish is not Finish.RUNNING
            if (name, choice) not in harness.cancelled:
                assert finished or name in told
    assert np.all([seq is None for seq in state.slots.seqs])

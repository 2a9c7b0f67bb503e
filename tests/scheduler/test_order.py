"""Who goes first: the policies, and who gives way under memory pressure."""

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.mesh.load import load_attributes
from radixmesh.shared.messages import Choice
from tests.scheduler.harness import Harness, admit_message, options, prompt, running, sizes

# -- memory pressure --


def test_memory_pressure_retracts_the_youngest_and_loses_nothing() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=24, max_slots=6))
    for i in range(6):
        harness.admit(admit_message(f"r{i}", prompt(i, 8), max_tokens=60, ignore_eos=True))
    harness.run()
    harness.verify()
    assert harness.core.state.counters.retracted > 0
    assert len(set(harness.outcomes["r0", 0].cached)) == 1, "the oldest was retracted"


def test_those_that_wait_though_they_have_begun_are_told_apart() -> None:
    """One was retracted; another comes with what a lost replica had made of it."""
    harness = Harness(options(), sizes(page_size=4, num_pages=10, max_slots=4))
    for number in range(4):
        harness.admit(admit_message(f"r{number}", prompt(number, 4), max_tokens=30, ignore_eos=True))
    state = harness.core.state
    while not state.counters.retracted:
        assert load_attributes(state)["waiting_begun"] == 0
        harness.pump()
        harness.work()
        harness.deliver()
    told = load_attributes(state)
    assert told["waiting_begun"] == told["waiting"] == 1
    resumed = [Choice(index=0, resumed=np.array([5, 6], "<i4"))]
    harness.admit(admit_message("old", prompt(9, 4), max_tokens=30).model_copy(update={"choices": resumed}))
    harness.admit(admit_message("new", prompt(8, 4), max_tokens=30))
    told = load_attributes(state)
    assert (told["waiting"], told["waiting_begun"]) == (3, 2)


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
    harness.admit(admit_message("high", prompt(1, 8), max_tokens=4, priority=10))
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

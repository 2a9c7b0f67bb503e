"""Layers of several kinds: what each group's memory must hold, and for how long."""

from typing import Any

import numpy as np
import pytest

from radixmesh.services.scheduler.memory.kv import unfit_groups
from radixmesh.services.scheduler.mesh.load import load_attributes
from radixmesh.services.scheduler.mesh.pairing import wrong_sizes
from radixmesh.shared.messages import Admission, KvGroup, KvKind, SamplingParams, Span, StepPlan, Work
from tests.scheduler.harness import Harness, admit_message, options, prompt, running, sizes
from tests.scheduler.simulator import PlanBroken, SimWorker, fingerprints, next_token


def full(num_pages: int) -> KvGroup:
    return KvGroup(page_size=4, num_pages=num_pages)


def window(num_pages: int, tokens: int) -> KvGroup:
    return KvGroup(kind=KvKind.WINDOW, page_size=4, num_pages=num_pages, window=tokens)


def run(harness: Harness, counts: dict[str, tuple[int, int]]) -> list[int]:
    """Requests by name: tokens of the prompt, and of output. Returns the most pages of each group that one has held."""
    for seed, (name, (length, most)) in enumerate(counts.items()):
        harness.admit(admit_message(name, prompt(seed, length), max_tokens=most, ignore_eos=True))
    held = [0] * len(harness.sizes.groups)
    while harness.pump() or harness.plans or harness.reports:
        harness.work()
        harness.deliver()
        for seq in harness.core.replica.slots.sequences():
            now = [len(holding.pages) - holding.first for holding in seq.held.groups]
            held = [max(pair) for pair in zip(held, now, strict=True)]
    harness.run()
    harness.verify()
    return held


# -- windows --


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_a_long_sequence_holds_of_a_window_is_bounded(depth: int, cached: bool) -> None:
    """By the window and the chunks under way, while it holds all pages of the layers that see everything."""
    settings = options(prefill_chunk=16, max_prefill_tokens=16, pipeline_depth=depth, prefix_cache=cached)
    harness = Harness(settings, sizes(groups=[full(300), window(300, 20)], max_model_len=1200))
    held = run(harness, {"a": (500, 500)})
    assert held[0] == 250
    assert held[1] <= 5 + 4 * (depth + 1)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("multi", [1, 8])
@pytest.mark.parametrize("groups", [[window(8, 20)], [window(7, 20)], [full(400), window(8, 20)]], ids=str)
def test_a_small_pool_of_a_window_is_enough_for_long_sequences(groups: list[KvGroup], multi: int, cached: bool) -> None:
    """Seven pages are the fewest: the five that the window shows, one to go on in, and one as reports come late."""
    settings = options(pipeline_depth=2, max_multi_step=multi, prefix_cache=cached)
    harness = Harness(settings, sizes(groups=groups, max_model_len=1200))
    run(harness, {"a": (300, 200), "b": (40, 300), "c": (3, 100)})
    assert not harness.failures()


def test_a_pool_in_which_a_window_cannot_move_on_bounds_the_length() -> None:
    harness = Harness(claimed=sizes(groups=[window(6, 20)], max_model_len=1200))
    assert harness.core.replica.max_len == 6 * 4 + 1
    assert Harness(claimed=sizes(groups=[window(7, 20)], max_model_len=1200)).core.replica.max_len == 1200
    assert Harness(claimed=sizes(groups=[window(7, 20), full(100)], max_model_len=1200)).core.replica.max_len == 401


def test_several_run_side_by_side_in_what_one_would_fill_without_a_window() -> None:
    """Four sequences of 400 tokens, and pages for 240."""
    harness = Harness(options(), sizes(groups=[window(60, 20)], max_model_len=1200))
    most = 0
    for name in "abcd":
        harness.admit(admit_message(name, prompt(ord(name), 20), max_tokens=380, ignore_eos=True))
    while harness.pump() or harness.plans or harness.reports:
        harness.work()
        harness.deliver()
        most = max(most, len(running(harness)))
    harness.verify()
    assert most == 4
    assert harness.core.replica.counters.retracted == 0


def test_a_conversation_goes_on_from_its_end_though_its_middle_is_gone() -> None:
    """A prompt that leaves it in the middle finds nothing that it could go on from."""
    harness = Harness(options(), sizes(groups=[full(200), window(20, 20)], max_model_len=1200))
    run(harness, {"a": (400, 5)})
    told = np.concatenate([prompt(0, 400), harness.outcomes["a", 0].tokens]).astype(np.int32)
    for name, tokens in (("end", np.concatenate([told, prompt(9, 30)])), ("middle", told[:210])):
        harness.admit(admit_message(name, tokens, max_tokens=4))
        harness.run()
    harness.verify()
    cached = {name: harness.outcomes[name, 0].cached[0] for name in ("middle", "end")}
    assert cached == {"middle": 0, "end": 404}


def test_a_common_beginning_is_shared_while_its_pages_last() -> None:
    """Longer prompts than the window: each finds what they have in common, as the window shows its end."""
    settings = options(prefill_chunk=64, max_prefill_tokens=64)
    harness = Harness(settings, sizes(groups=[full(400), window(120, 20)], max_model_len=1200))
    common = prompt(0, 100)
    for number in range(6):
        own = prompt(number + 1, 60)
        harness.admit(admit_message(f"r{number}", np.concatenate([common, own]), max_tokens=3, ignore_eos=True))
        harness.run()
    harness.verify()
    assert [harness.outcomes[f"r{number}", 0].cached[0] for number in range(6)] == [0, 100, 100, 100, 100, 100]


def test_what_the_books_of_a_window_say_wrongly_is_found_and_repaired() -> None:
    harness = Harness(options(), sizes(groups=[full(40), window(20, 20)]))
    run(harness, {"a": (30, 4)})
    kv = harness.core.replica.kv
    tree_window = kv.tree.windows[1]
    assert tree_window is not None
    tree_window.lock([next(page for node in kv.tree.nodes() if node.size for page in node.pages[1] if page >= 0)])
    kv.pools[1].take(1)
    problems = " ".join(harness.core.check())
    assert "1 pages belong to nobody" in problems
    assert "0 pages of a window are read; the books say 1" in problems
    harness.core.repair()
    assert harness.core.check() == []
    run(harness, {"b": (30, 4)})


def test_preemption_counts_every_group() -> None:
    """The one that runs has little of the full layers' memory, and all of the window's."""
    settings = options(policy="priority", preemption_threshold=1)
    harness = Harness(settings, sizes(groups=[full(100), window(8, 20)], max_model_len=300))
    harness.admit(admit_message("low", prompt(0, 30), max_tokens=80, ignore_eos=True))
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    harness.admit(admit_message("high", prompt(1, 30), max_tokens=10, priority=5, ignore_eos=True))
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    assert running(harness) == {"high"}
    harness.run()
    harness.verify()


def test_heartbeats_tell_of_each_group() -> None:
    harness = Harness(options(), sizes(groups=[full(40), window(20, 20)]))
    run(harness, {"a": (40, 4)})
    told = load_attributes(harness.core.replica)
    assert told["kv_groups"] == [
        {"kind": "full", "num_pages": 40, "free_pages": 30, "cached_pages": 10},
        {"kind": "window", "num_pages": 20, "free_pages": 10, "cached_pages": 10},
    ]
    assert (told["num_pages"], told["free_pages"], told["cached_pages"]) == (60, 40, 20)


# -- latent --


def test_latent_pages_live_as_full_ones_do() -> None:
    """Plans and books are the same but for the kind; beside full layers each group has pages of its own."""
    told = []
    for kind in (KvKind.FULL, KvKind.LATENT):
        group = KvGroup(kind=kind, page_size=4, num_pages=30)
        harness = Harness(options(), sizes(groups=[group]))
        held = run(harness, {"a": (30, 20), "b": (50, 30)})
        told.append((held, harness.steps, harness.core.replica.kv.cached, harness.core.replica.counters))
    assert told[0] == told[1]
    both = Harness(options(), sizes(groups=[full(40), KvGroup(kind=KvKind.LATENT, page_size=4, num_pages=20)]))
    assert both.core.replica.max_len == 81
    assert run(both, {"a": (30, 20), "b": (50, 30)}) == [20, 20]


# -- states --


def test_groups_that_cannot_be_served_are_refused_by_name() -> None:
    def why(*groups: KvGroup) -> str:
        return unfit_groups(groups)

    state = KvGroup(kind=KvKind.STATE, page_size=4, num_pages=9)
    assert why(full(9), state) == "group 1 is of the kind 'state', which is not served yet"
    assert wrong_sizes(sizes(groups=[state])) == "group 0 is of the kind 'state', which is not served yet"
    assert why() == "it names no group of layers"
    assert why(full(9), window(9, 0)) == "group 1 is of the kind 'window' and has a window of 0"
    assert why(full(9).model_copy(update={"window": 3})) == "group 0 is of the kind 'full' and has a window of 3"
    unequal = full(9).model_copy(update={"page_size": 8})
    assert why(full(9), unequal) == "group 1 has pages of 8 tokens, and group 0 of 4"
    assert why(full(9), window(9, 7), KvGroup(kind=KvKind.LATENT, page_size=4, num_pages=3)) == ""


class StateWorker:
    """A worker whose layers keep a state, and the plans that it should get."""

    def __init__(self) -> None:
        group = KvGroup(kind=KvKind.STATE, page_size=4, num_pages=8)
        self.worker = SimWorker(sizes(groups=[group]))
        self.tokens = prompt(0, 20)
        self.seq = -1

    def run(self, slot: int, page: int, start: int, stop: int, first: bool) -> list[int]:
        """Tokens [start, stop) of the prompt in `slot`, whose state is in `page`; the tokens that follow."""
        self.seq += 1
        admission = Admission(
            slot=slot,
            request_id="r",
            choice=0,
            attempt=0,
            detokenizer_id="d",
            prompt_ids=self.tokens,
            work=Work(params=SamplingParams(ignore_eos=True)),
            computed_tokens=start,
        )
        grant: dict[str, Any] = {
            "grant_slots": [slot], "grant_groups": [0], "grant_starts": [0], "grant_counts": [1], "grant_pages": [page],
        }  # fmt: skip
        span = Span(slot, start, stop - start, stop == len(self.tokens), 0)
        plan = StepPlan(
            epoch=1,
            seq=self.seq,
            admissions=[admission] if first else [],
            **(grant if first else {}),
            span_slots=[span.slot],
            span_starts=[span.start],
            span_counts=[span.count],
            span_sampled=[span.sampled],
            span_drafts=[0],
        )
        made: list[int] = self.worker.run(plan).tokens.tolist()
        return made

    def snapshot(self, page: int, to: int) -> None:
        """What a worker is to do at a page border, between two passes."""
        self.worker.memory[0][to] = self.worker.memory[0][page]


def test_a_state_goes_on_from_a_copy_made_at_that_very_border() -> None:
    """One page per sequence, which each pass overwrites; a copy of it is a prefix, as long as when it was made."""
    rig = StateWorker()
    expected = next_token(int(fingerprints(rig.tokens)[-1]), SamplingParams(ignore_eos=True), 0)
    assert rig.run(slot=0, page=2, start=0, stop=8, first=True) == []
    rig.snapshot(2, to=5)
    assert rig.run(slot=0, page=2, start=8, stop=20, first=False) == [expected]
    rig.snapshot(5, to=6)  # a sequence works on a copy of its own, and the tree's stays
    assert rig.run(slot=1, page=6, start=8, stop=20, first=True) == [expected]
    assert rig.worker.memory[0][5] == fingerprints(rig.tokens)[7]
    with pytest.raises(PlanBroken, match="a state is that of other tokens"):
        rig.run(slot=2, page=5, start=12, stop=20, first=True)  # there is none of twelve tokens

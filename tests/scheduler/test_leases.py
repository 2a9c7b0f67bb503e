"""Leased pages are nobody else's before the lease ends, whatever their holder does meanwhile."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.memory.leases import Leases
from radixmesh.services.scheduler.memory.pages import NONE, PageAllocator
from radixmesh.shared.messages import KvGroup, KvKind
from tests.scheduler.harness import Harness, admit_message, options, prompt, running, sizes

TOTAL = (6, 4)


@dataclass
class Naive:
    """Who has each page of each group, and who has leased it."""

    owned: list[set[int]] = field(default_factory=lambda: [set() for _ in TOTAL])
    leases: dict[int, tuple[str, list[list[int]]]] = field(default_factory=dict)

    def leased(self, group: int) -> set[int]:
        return {page for _, pages in self.leases.values() for page in pages[group]}

    def free(self, group: int) -> set[int]:
        return set(range(TOTAL[group])) - self.owned[group] - self.leased(group)


_picks = st.lists(st.integers(0, 9), max_size=4)
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, 1), st.integers(0, 4)),
        st.tuples(st.just("give"), st.integers(0, 1), _picks),
        st.tuples(st.just("lease"), st.sampled_from("ab"), st.tuples(_picks, _picks)),
        st.tuples(st.just("end"), st.integers(0, 9), st.none()),
        st.tuples(st.just("drop"), st.sampled_from("ab"), st.none()),
        st.tuples(st.just("reset"), st.none(), st.none()),
    ),
    max_size=40,
)


def _picked(pages: set[int], picks: list[int]) -> list[int]:
    """Some of the pages."""
    ordered = sorted(pages)
    return [ordered[pick % len(ordered)] for pick in picks] if ordered else []


def _apply(pools: list[PageAllocator], leases: Leases, naive: Naive, operation: tuple[str, Any, Any]) -> None:
    match operation:
        case "take", group, count if count <= len(naive.free(group)):
            taken = pools[group].take(count)
            assert set(taken) <= naive.free(group)
            assert len(set(taken)) == count
            naive.owned[group] |= set(taken)
        case "take", group, count:
            with pytest.raises(IndexError):
                pools[group].take(count)
        case "give", group, picks:
            given_back = set(_picked(naive.owned[group], picks))
            pools[group].give(sorted(given_back))
            naive.owned[group] -= given_back
        case "lease", owner, picks:
            pages = [_picked(owned, some) for owned, some in zip(naive.owned, picks, strict=True)]
            naive.leases[leases.begin(owner, pages)] = owner, pages
        case "end", index, _:
            number = _picked(set(naive.leases), [index])
            for each in [*number, *number, 999]:  # the second time, and of none, it does nothing
                leases.end(each)
                naive.leases.pop(each, None)
        case "drop", owner, _:
            leases.drop(owner)
            naive.leases = {number: lease for number, lease in naive.leases.items() if lease[0] != owner}
        case "reset", _, _:
            for pool, owned in zip(pools, naive.owned, strict=True):
                pool.reset()
                owned.clear()


@settings(max_examples=300)
@given(operations=_operations)
def test_equals_sets_of_owners_and_leases(operations: list[Any]) -> None:
    pools = [PageAllocator(total) for total in TOTAL]
    leases, naive = Leases(pools), Naive()
    for operation in operations:
        _apply(pools, leases, naive, operation)
        assert len(leases) == len(naive.leases)
        for group, pool in enumerate(pools):
            assert set(pool._free) == naive.free(group)
            assert pool.available == len(naive.free(group))
            assert pool.leased == len(naive.leased(group) & naive.owned[group])
            assert pool.check([], naive.owned[group]) == []
    for owner in "ab":
        leases.drop(owner)
    for group, pool in enumerate(pools):
        pool.give(sorted(naive.owned[group]))
        assert pool.available == pool.total


def test_pages_that_nobody_has_cannot_be_leased() -> None:
    pools = [PageAllocator(4), PageAllocator(4)]
    leases = Leases(pools)
    mine = pools[0].take(2)
    with pytest.raises(ValueError, match=r"pages of group 1 that nobody has cannot be leased: \[2\]"):
        leases.begin("a", [mine, [2]])
    pools[0].give(mine)
    assert pools[0].available == 4  # nothing was leased
    with pytest.raises(ValueError, match="nobody has"):
        leases.begin("a", [[9], []])


# -- beside running sequences --

_MIXED = [
    KvGroup(page_size=4, num_pages=24),
    KvGroup(kind=KvKind.WINDOW, page_size=4, num_pages=14, window=9),
]
_actions = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 20))),
        st.tuples(st.just("go"), st.integers(1, 6)),
        st.tuples(st.just("lease sequence"), st.integers(0, 9)),
        st.tuples(st.just("lease cached"), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=30,
)


class Leasing(Harness):
    """Leases pages of what runs and what is cached; no plan may have any of them written while they are leased."""

    def __init__(self, options: SchedulerSettings) -> None:
        super().__init__(options, sizes(groups=_MIXED, max_slots=4, max_model_len=90))
        self.kv = self.core.replica.kv
        self.open: dict[int, list[list[int]]] = {}
        self.theirs: list[Counter[int]] = [Counter() for _ in _MIXED]

    def lease(self, pages: list[list[int]]) -> None:
        there = [[page for page in part if page != NONE] for part in pages]
        self.open[self.kv.leases.begin("copier", there)] = there

    def act(self, action: tuple[str, Any]) -> None:
        seqs, nodes = self.core.replica.slots.sequences(), [node for node in self.kv.tree.nodes() if node.size]
        match action:
            case "admit", (seed, length, most):
                name = f"r{len(self.admits)}"
                self.admit(admit_message(name, prompt(seed, length), max_tokens=most, ignore_eos=True))
            case "go", count:
                for _ in range(count):
                    self.pump()
                    self.work()
                    self.deliver()
            case "lease sequence", index if seqs:
                self.lease([holding.pages for holding in seqs[index % len(seqs)].held.groups])
            case "lease cached", index if nodes:
                self.lease(nodes[index % len(nodes)].pages)
            case "end", index if self.open:
                number = list(self.open)[index % len(self.open)]
                self.kv.leases.end(number)
                del self.open[number]
            case "cancel", index if self.admits:
                self.cancel(f"r{index % len(self.admits)}")
            case "flush", _:
                self.core.flush()
                self.check()

    def pump(self) -> int:
        before = [set(pool._free) for pool in self.kv.pools]
        made = super().pump()
        for group, pool in enumerate(self.kv.pools):
            leased = {page for pages in self.open.values() for page in pages[group]}
            assert not leased & (before[group] | set(pool._free)), "a leased page is free"
        return made


@settings(max_examples=150)
@given(actions=_actions, depth=st.integers(1, 3), cached=st.booleans(), multi=st.integers(1, 4))
def test_a_leased_page_is_never_free_whatever_runs(
    actions: list[tuple[str, Any]], depth: int, cached: bool, multi: int
) -> None:
    harness = Leasing(options(pipeline_depth=depth, prefix_cache=cached, max_multi_step=multi))
    for action in actions:
        harness.act(action)
    harness.kv.leases.drop("copier")
    harness.open.clear()
    harness.run(limit=20_000)
    harness.verify()
    harness.core.flush()
    assert harness.kv.free == harness.kv.total


def test_what_is_leased_is_not_promised_to_anybody() -> None:
    """All memory is cached and leased: a newcomer waits, and comes in when the lease ends."""
    harness = Harness(options(), sizes(num_pages=8))
    harness.admit(admit_message("a", prompt(0, 30), max_tokens=1))
    harness.run()
    kv = harness.core.replica.kv
    number = kv.leases.begin("tier", [[page for node in kv.tree.nodes() if node.size for page in node.pages[0]]])
    assert (kv.free, kv.available(0)) == (1, 1)
    harness.admit(admit_message("b", prompt(1, 30), max_tokens=2))
    assert harness.pump() == 0
    harness.core.flush()
    assert harness.pump() == 0
    assert kv.check([]) == []
    kv.leases.end(number)
    harness.run()
    harness.verify()


def test_repaired_books_keep_what_is_leased_and_a_new_epoch_knows_no_leases() -> None:
    harness = Harness(options(), sizes(num_pages=8))
    harness.admit(admit_message("a", prompt(0, 30), max_tokens=1))
    harness.run()
    kv = harness.core.replica.kv
    kv.leases.begin("tier", [kv.tree.match(prompt(0, 30)[:8], next(iter(kv.tree._roots))).pages[0]])
    harness.core.repair()
    assert kv.free == 6
    assert harness.core.check() == []
    fresh = Harness(options(), sizes(num_pages=8)).core.replica.kv
    assert (fresh.free, len(fresh.leases)) == (8, 0)
    kv.leases.drop("tier")
    assert np.array_equal(sorted(kv.pools[0]._free), range(8))


def test_a_prompt_that_leases_leave_no_room_for_goes_back_to_the_queue_and_on_when_they_end() -> None:
    group = KvGroup(kind=KvKind.WINDOW, page_size=4, num_pages=8, window=20)
    settings = options(prefill_chunk=8, max_prefill_tokens=8, pipeline_depth=1)
    harness = Harness(settings, sizes(groups=[group], max_model_len=300))
    harness.admit(admit_message("a", prompt(0, 100), max_tokens=5, ignore_eos=True))
    kv = harness.core.replica.kv
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    number = kv.leases.begin(
        "tier", [[page for node in kv.tree.nodes() if node.size for page in node.pages[0] if page != NONE]]
    )
    while harness.pump():
        harness.work()
        harness.deliver()
    assert (running(harness), harness.core.replica.counters.retracted) == (set(), 1)
    assert harness.core.check() == []
    kv.leases.end(number)
    harness.run()
    harness.verify()

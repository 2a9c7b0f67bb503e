"""The radix tree with windows: nodes whose pages are there in one group and gone in another, against a dictionary."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.scheduler.memory.pages import NONE
from radixmesh.services.scheduler.memory.radix_node import Node
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from tests.scheduler.test_radix_tree import Blocks, Prefix, tokens_of

SIZE = 4
WINDOWS: list[list[int | None]] = [[None, 5], [6], [None, 1, 9], [12, 4], [None, None, 5]]


def _prefix(space: str, path: tuple[int, ...], length: int) -> Prefix:
    return (space, path[:length])


@dataclass
class Holder:
    """Who goes on from a prefix: it has locked the nodes, and the pages that its windows show."""

    space: str
    path: tuple[int, ...]
    node: Node
    read: list[list[int]]
    """By group."""


@dataclass
class Naive:
    """Every page by prefix, as if there were no nodes."""

    windows: list[int | None]
    pages: list[dict[Prefix, int]]
    holders: list[Holder] = field(default_factory=list)
    next_page: int = 0

    def fresh(self, count: int) -> list[int]:
        self.next_page += count
        return list(range(self.next_page - count, self.next_page))

    def reach(self, group: int, length: int) -> int:
        """Pages before `length` that the group must have there."""
        window = self.windows[group]
        return length if window is None else min(length, max(1, -(-(window - 1) // SIZE)))

    def usable(self, space: str, path: tuple[int, ...]) -> int:
        """The longest prefix to go on from."""
        return max(
            length
            for length in range(len(path) + 1)
            if all(
                _prefix(space, path, at + 1) in pages
                for group, pages in enumerate(self.pages)
                for at in range(length - self.reach(group, length), length)
            )
        )

    def shown(self, space: str, path: tuple[int, ...], length: int) -> list[list[int]]:
        found = []
        for group, pages in enumerate(self.pages):
            first = length - self.reach(group, length)
            found.append([pages[_prefix(space, path, at + 1)] if at >= first else NONE for at in range(length)])
        return found

    def insert(self, space: str, path: tuple[int, ...], begin: int, offered: list[list[int]]) -> list[list[int]]:
        """Behind the first `begin` pages; returns the duplicates."""
        duplicates: list[list[int]] = [[] for _ in self.pages]
        for group, pages in enumerate(self.pages):
            for at, page in enumerate(offered[group], begin + 1):
                if page != NONE and pages.setdefault(_prefix(space, path, at), page) != page:
                    duplicates[group].append(page)
        return duplicates

    def locked(self, group: int) -> set[int]:
        """Pages that may not go."""
        if self.windows[group] is not None:
            return {page for holder in self.holders for page in holder.read[group]}
        ends = [_prefix(it.space, it.path, i) for it in self.holders for i in range(1, len(it.path) + 1)]
        return {self.pages[group][end] for end in ends}

    def remove(self, freed: list[list[int]]) -> None:
        for group, gone in enumerate(freed):
            assert not self.locked(group) & set(gone), "a page was evicted that somebody reads"
            prefixes = {page: prefix for prefix, page in self.pages[group].items()}
            for page in gone:
                del self.pages[group][prefixes[page]]


_paths = st.lists(st.integers(0, 1), max_size=9).map(tuple)
_spaces = st.sampled_from(["", "", "x"])
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), _spaces, _paths),
        st.tuples(st.just("attach"), _spaces, _paths),
        st.tuples(st.just("attach"), _spaces, _paths),
        st.tuples(st.just("store"), st.integers(0, 9), _paths),
        st.tuples(st.just("store"), st.integers(0, 9), _paths),
        st.tuples(st.just("slide"), st.integers(0, 9), st.integers(1, 4)),
        st.tuples(st.just("detach"), st.integers(0, 9), st.none()),
        st.tuples(st.just("evict"), st.integers(0, 2), st.integers(0, 8)),
        st.tuples(st.just("evict"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=40,
)


def _apply(tree: RadixTree, naive: Naive, operation: tuple[str, Any, Any]) -> None:
    groups, holders = len(naive.windows), naive.holders
    match operation:
        case "insert", space, path:
            offered = [naive.fresh(len(path)) for _ in range(groups)]
            duplicates = naive.insert(space, path, 0, offered)
            assert tree.insert(tree.root(space), tokens_of(path, SIZE), offered).duplicates == duplicates
        case "attach", space, path:
            _attach(tree, naive, space, path)
        case "store", index, path if holders:
            _store(tree, naive, holders[index % len(holders)], path)
        case "slide", index, count if holders:
            for window, read in zip(tree.windows, holders[index % len(holders)].read, strict=True):
                if window is not None:
                    window.unlock(read[:count])
                    del read[:count]
        case "detach", index, _ if holders:
            _detach(tree, naive, holders.pop(index % len(holders)))
        case "evict", group, count if group < groups:
            free = len(naive.pages[group]) - len(naive.locked(group))
            assert tree.evictable(group) == free
            freed = tree.evict(count, group)
            assert len(freed[group]) >= min(count, free)
            naive.remove(freed)
        case "clear", _, _:
            naive.remove(tree.clear())
            assert all(set(pages.values()) == naive.locked(group) for group, pages in enumerate(naive.pages))


def _attach(tree: RadixTree, naive: Naive, space: str, path: tuple[int, ...]) -> None:
    tokens = tokens_of(path, SIZE)
    usable, peek = naive.usable(space, path), tree.peek(tokens, space)
    before = [tree.evictable(group) for group in range(len(naive.windows))]
    found = tree.match(tokens, space)
    assert (peek.pages, found.size, found.pages) == (usable, usable, naive.shown(space, path, usable))
    tree.lock(found.node)
    read = [[page for page in part if page != NONE] for part in found.pages]
    for window, pages in zip(tree.windows, read, strict=True):
        if window is not None:
            window.lock(pages)
    assert peek.unlocked == [was - tree.evictable(group) for group, was in enumerate(before)]
    naive.holders.append(Holder(space, path[:usable], found.node, read))


def _store(tree: RadixTree, naive: Naive, holder: Holder, path: tuple[int, ...]) -> None:
    """What it has computed behind its prefix, but for what its windows have left behind."""
    begin, length = len(holder.path), len(holder.path) + len(path)
    offered = []
    for group in range(len(naive.windows)):
        gone = max(0, len(path) - naive.reach(group, length))
        offered.append([NONE] * gone + naive.fresh(len(path) - gone))
    holder.path += path
    duplicates = naive.insert(holder.space, holder.path, begin, offered)
    inserted = tree.insert(holder.node, tokens_of(path, SIZE), offered)
    assert inserted.duplicates == duplicates
    tree.move_lock(holder.node, inserted.node)
    holder.node = inserted.node
    for window, read, mine, own in zip(tree.windows, holder.read, offered, duplicates, strict=True):
        taken = [page for page in mine if page != NONE and page not in own]
        read += taken
        if window is not None:
            window.lock(taken)


def _detach(tree: RadixTree, naive: Naive, holder: Holder) -> None:
    for window, read in zip(tree.windows, holder.read, strict=True):
        if window is not None:
            window.unlock(reversed(read))
    tree.unlock(holder.node)
    naive.remove(tree.take_freed())


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@settings(max_examples=150)
@given(operations=_operations)
def test_equals_a_dictionary_of_pages(windows: list[int | None], operations: list[Any]) -> None:
    blocks = Blocks()
    tree = RadixTree(SIZE, "lru", blocks, windows)
    naive = Naive(windows, [{} for _ in windows])
    for operation in operations:
        _apply(tree, naive, operation)
        read = [[page for holder in naive.holders for page in holder.read[group]] for group in range(len(windows))]
        assert tree.check((holder.node for holder in naive.holders), read) == []
        for group, pages in enumerate(naive.pages):
            there = [page for node in tree.nodes() if node.size for page in node.pages[group] if page != NONE]
            assert Counter(there) == Counter(pages.values())
            assert tree.cached(group) == len(pages)
        assert blocks.known == {block for node in tree.nodes() for block in node.hashes.tolist()}
    while naive.holders:
        _detach(tree, naive, naive.holders.pop())
    naive.remove(tree.clear())
    assert (tree.size, tree.locked, naive.pages) == (0, 0, [{} for _ in windows])
    assert not any(node.size for node in tree.nodes())


def _stored(windows: list[int | None], path: list[int], pages: list[list[int]]) -> RadixTree:
    tree = RadixTree(SIZE, "lru", None, windows)
    tree.insert(tree.root(), tokens_of(path, SIZE), pages)
    return tree


def test_a_prefix_is_shared_as_far_as_every_window_shows() -> None:
    """A window of nine tokens shows two pages: without the fifth, one can go on behind the fourth, or the seventh."""
    tree = _stored([None, 9], list(range(7)), [list(range(7)), list(range(10, 17))])
    assert tree.windows[1] is not None
    tree.windows[1].lock([10, 11, 12, 13, 15, 16])
    assert tree.evict(1, 1) == [[], [14]]
    for length, usable in ((7, 7), (6, 4), (5, 4), (4, 4), (1, 1)):
        assert tree.match(tokens_of(list(range(length)), SIZE)).size == usable
    assert tree.match(tokens_of(list(range(7)), SIZE)).pages == [
        [0, 1, 2, 3, 4, 5, 6],
        [NONE, NONE, NONE, NONE, NONE, 15, 16],
    ]


def test_pages_that_windows_left_behind_first_go_first() -> None:
    tree = _stored([9], list(range(6)), [list(range(10, 16))])
    window = tree.windows[0]
    assert window is not None
    window.lock(range(10, 16))
    for pages in ([10, 11], [12], reversed([13, 14, 15])):  # it moves on twice, and the sequence ends
        window.unlock(pages)
    assert [tree.evict(1) for _ in range(4)] == [[[10]], [[11]], [[12]], [[15]]]


def test_a_leaf_that_no_window_knows_is_dropped_with_all_its_pages() -> None:
    tree = _stored([None, 5], [0, 1], [[0, 1], [10, 11]])
    tree.insert(tree.root(), tokens_of([0, 1, 2], SIZE), [[0, 1, 2], [10, 11, 12]])
    assert tree.size == 3
    assert tree.evict(3, 1) == [[2, 0, 1], [10, 11, 12]]
    assert list(tree.nodes()) == []


def test_what_was_lost_is_taken_from_the_next_who_brings_it() -> None:
    tree = _stored([None, 5], [0, 1], [[0, 1], [10, 11]])
    tree.evict(1, 1)
    assert tree.match(tokens_of([0], SIZE)).size == 0
    brought = tree.insert(tree.root(), tokens_of([0, 1], SIZE), [[5, 6], [15, 16]])
    assert brought.duplicates == [[5, 6], [16]]
    assert tree.match(tokens_of([0], SIZE)).pages == [[0], [15]]


def test_a_held_leaf_stays_without_its_window_until_it_is_let_go() -> None:
    tree = _stored([6], [0, 1], [[10, 11]])
    node = tree.match(tokens_of([0, 1], SIZE)).node
    tree.lock(node)
    assert tree.evict(9) == [[10, 11]]
    assert np.array_equal([it.size for it in tree.nodes()], [0, 2])
    tree.unlock(node)
    assert list(tree.nodes()) == []

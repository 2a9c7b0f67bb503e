"""The radix tree against a dictionary of prefixes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.radix_node import Node
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.shared.prefix_hash import block_hashes

Prefix = tuple[str, tuple[int, ...]]
"""Namespace, and one number per page."""


def tokens_of(pages: list[int] | tuple[int, ...], page_size: int) -> NDArray[np.int32]:
    """Pages that differ in one token only, at a place that depends on their number."""
    rows = np.zeros((len(pages), page_size), np.int32)
    for row, number in zip(rows, pages, strict=True):
        row[number % page_size] = number + 1
    return rows.reshape(-1)


class Blocks:
    """A listener that keeps what is stored."""

    def __init__(self) -> None:
        self.known: set[int] = set()

    def stored(self, hashes: NDArray[np.uint64]) -> None:
        fresh = set(hashes.tolist())
        assert not fresh & self.known
        self.known |= fresh

    def removed(self, hashes: NDArray[np.uint64]) -> None:
        gone = set(hashes.tolist())
        assert gone <= self.known
        self.known -= gone


@dataclass
class Naive:
    """The same as the tree, the slow way."""

    page_size: int
    pages: dict[Prefix, int] = field(default_factory=dict)
    locks: list[tuple[Prefix, Node]] = field(default_factory=list)
    next_page: int = 0

    def insert(self, namespace: str, numbers: list[int]) -> tuple[list[int], list[int]]:
        """Page ids offered, and those of them that are duplicates."""
        offered = list(range(self.next_page, self.next_page + len(numbers)))
        self.next_page += len(numbers)
        duplicates = []
        for i, page in enumerate(offered):
            prefix = (namespace, tuple(numbers[: i + 1]))
            if prefix in self.pages:
                duplicates.append(page)
            else:
                self.pages[prefix] = page
        return offered, duplicates

    def match(self, namespace: str, numbers: list[int]) -> list[int]:
        found = []
        for i in range(len(numbers)):
            page = self.pages.get((namespace, tuple(numbers[: i + 1])))
            if page is None:
                break
            found.append(page)
        return found

    def locked(self) -> set[Prefix]:
        return {(space, path[:i]) for (space, path), _ in self.locks for i in range(1, len(path) + 1)}

    def remove(self, freed: list[int]) -> None:
        by_page = {page: prefix for prefix, page in self.pages.items()}
        locked = self.locked()
        for page in freed:
            prefix = by_page[page]
            assert prefix not in locked, "a locked page was evicted"
            del self.pages[prefix]
        for space, path in self.pages:
            assert len(path) == 1 or (space, path[:-1]) in self.pages, "a page was left without those before it"

    def hashes(self) -> set[int]:
        return {
            int(block_hashes(tokens_of(path, self.page_size), self.page_size, space)[-1]) for space, path in self.pages
        }


_paths = st.lists(st.integers(0, 2), max_size=6)
_spaces = st.sampled_from(["", "x"])
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), _spaces, _paths),
        st.tuples(st.just("extend"), st.integers(0, 9), _paths),
        st.tuples(st.just("match"), _spaces, _paths),
        st.tuples(st.just("lock"), _spaces, _paths),
        st.tuples(st.just("unlock"), st.integers(0, 9), st.none()),
        st.tuples(st.just("evict"), st.integers(0, 8), st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=40,
)


def _apply(tree: RadixTree, naive: Naive, operation: tuple[str, Any, Any]) -> None:
    size = tree.page_size
    match operation:
        case "insert", space, path:
            offered, duplicates = naive.insert(space, path)
            assert tree.insert(tree.root(space), tokens_of(path, size), [offered]).duplicates == [duplicates]
        case "extend", index, path if naive.locks:
            (space, held), node = naive.locks[index % len(naive.locks)]
            offered, duplicates = naive.insert(space, [*held, *path])
            naive.next_page -= len(held)
            fresh = list(range(naive.next_page, naive.next_page + len(path)))
            naive.next_page += len(path)
            for prefix, page in list(naive.pages.items()):
                if page in offered:
                    naive.pages[prefix] = fresh[offered.index(page) - len(held)]
            inserted = tree.insert(node, tokens_of(path, size), [fresh])
            assert len(inserted.duplicates[0]) == len(duplicates) - len(held)
            tree.move_lock(node, inserted.node)
            naive.locks[index % len(naive.locks)] = ((space, (*held, *path)), inserted.node)
        case "match", space, path:
            assert tree.peek(tokens_of(path, size), space).pages == len(naive.match(space, path))
            assert tree.match(tokens_of(path, size), space).pages == [naive.match(space, path)]
        case "lock", space, path:
            peek = tree.peek(tokens_of(path, size), space)
            before = tree.evictable()
            found = tree.match(tokens_of(path, size), space)
            tree.lock(found.node)
            assert before - tree.evictable() == peek.unlocked[0]
            naive.locks.append(((space, tuple(path[: found.size])), found.node))
        case "unlock", index, _ if naive.locks:
            tree.unlock(naive.locks.pop(index % len(naive.locks))[1])
        case "evict", count, _:
            free = len(naive.pages) - len(naive.locked())
            (freed,) = tree.evict(count)
            assert len(freed) == min(count, free)
            naive.remove(freed)
        case "clear", _, _:
            naive.remove(tree.clear()[0])
            assert set(naive.pages) == naive.locked()


@pytest.mark.parametrize("page_size", [1, 3, 16])
@pytest.mark.parametrize("eviction", ["lru", "lfu"])
@settings(max_examples=100)
@given(operations=_operations)
def test_equals_a_dictionary_of_prefixes(page_size: int, eviction: Any, operations: list[Any]) -> None:
    blocks = Blocks()
    tree = RadixTree(page_size, eviction, blocks)
    naive = Naive(page_size)
    for operation in operations:
        _apply(tree, naive, operation)
        assert tree.check(node for _, node in naive.locks) == []
        assert tree.size == len(naive.pages)
        assert tree.locked == len(naive.locked())
        assert sorted(page for node in tree.nodes() for part in node.pages for page in part) == sorted(
            naive.pages.values()
        )
    assert blocks.known == naive.hashes()
    for _, node in naive.locks:
        tree.unlock(node)
    naive.locks.clear()
    naive.remove(tree.clear()[0])
    assert (tree.size, tree.locked, naive.pages, blocks.known) == (0, 0, {}, set())


def _insert(tree: RadixTree, path: list[int], pages: list[int], space: str = "") -> None:
    tree.insert(tree.root(space), tokens_of(path, tree.page_size), [pages])


def test_lru_evicts_what_was_not_used_for_longest() -> None:
    tree = RadixTree(4, "lru")
    _insert(tree, [0], [10])
    _insert(tree, [1], [11])
    _insert(tree, [2], [12])
    tree.match(tokens_of([0], 4))
    assert tree.evict(2) == [[11, 12]]


def test_lfu_evicts_what_was_used_least_often() -> None:
    tree = RadixTree(4, "lfu")
    for number in range(3):
        _insert(tree, [number], [10 + number])
    for number, uses in ((0, 3), (1, 1), (2, 2)):
        for _ in range(uses):
            tree.match(tokens_of([number], 4))
    assert tree.evict(3) == [[11, 12, 10]]


def test_eviction_takes_tails_and_leaves_prefixes() -> None:
    tree = RadixTree(4)
    _insert(tree, [0, 1, 2], [10, 11, 12])
    assert tree.evict(2) == [[11, 12]]
    assert tree.match(tokens_of([0, 1, 2], 4)).pages == [[10]]


def test_a_partial_page_is_never_matched() -> None:
    tree = RadixTree(4)
    _insert(tree, [0, 1], [10, 11])
    assert tree.match(tokens_of([0, 1], 4)[:7]).pages == [[10]]
    assert tree.match(tokens_of([0, 1], 4)[:3]).pages == [[]]


def test_namespaces_share_nothing_and_leave_nothing_behind() -> None:
    tree = RadixTree(4)
    _insert(tree, [0], [10], "a")
    assert tree.match(tokens_of([0], 4), "b").pages == [[]]
    found = tree.match(tokens_of([0], 4), "a")
    tree.lock(found.node)
    tree.unlock(found.node)
    empty = tree.match(tokens_of([0], 4), "b").node
    tree.lock(empty)
    tree.unlock(empty)
    assert tree.clear() == [[10]]
    assert list(tree.nodes()) == []


def test_the_eviction_heap_does_not_grow_with_use() -> None:
    tree = RadixTree(4)
    for number in range(8):
        _insert(tree, [number, number + 1], [2 * number, 2 * number + 1])
    for _ in range(500):
        for number in range(8):
            found = tree.match(tokens_of([number, number + 1], 4))
            tree.lock(found.node)
            tree.unlock(found.node)
    assert len(tree._leaves) <= 8

"""Leaves of the tree, in the order in which they are evicted."""

import heapq
from itertools import count

from radixmesh.services.scheduler.memory.radix_node import Node


class LeafQueue:
    """Unlocked leaves, the one that was used least first.

    Args:
        lfu: least often used goes first, then least recently; else the latter alone.
    """

    def __init__(self, *, lfu: bool) -> None:
        self._lfu = lfu
        self._heap: list[tuple[int, int, int, Node]] = []
        self._clock = count(1)

    def __len__(self) -> int:
        """Entries: leaves, and what has ceased to be one since it was added."""
        return len(self._heap)

    def touch(self, node: Node) -> None:
        """It is used now."""
        node.last_used = next(self._clock)
        node.hits += 1

    def add(self, leaf: Node) -> None:
        if not leaf.queued:
            leaf.queued = True
            heapq.heappush(self._heap, (*self._rank(leaf), leaf.serial, leaf))

    def pop(self) -> Node | None:
        """The next leaf to evict from; None if there is none. One of which something is left is to be added again."""
        while self._heap:
            hits, used, _serial, node = heapq.heappop(self._heap)
            node.queued = False
            if node.lock or node.children or not node.size:
                continue  # added again when it is next unlocked or bare
            if (hits, used) == self._rank(node):
                return node
            self.add(node)  # used since: ranks only rise, so a late look is enough
        return None

    def clear(self) -> None:
        self._heap.clear()

    def _rank(self, node: Node) -> tuple[int, int]:
        return (node.hits if self._lfu else 0, node.last_used)

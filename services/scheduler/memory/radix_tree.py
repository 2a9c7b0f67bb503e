"""The prefix cache: a radix tree over whole KV pages.

    root(namespace) ── [p0 p1 p2] ──┬── [p3]            an edge's node holds whole pages of tokens and their page ids;
                                    └── [p7 p8 p9]      siblings differ in their first page

A reference locks its node and every node up to the root, so a node without locks has none below it: all pages of
unlocked nodes can be evicted, leaves first.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.radix_node import Inserted, Listener, Match, Node, Peek, Root
from radixmesh.shared.prefix_hash import block_hashes

TOKEN_BYTES = 4


class RadixTree:
    """Maps prefixes, in namespaces, to pages.

    Args:
        page_size: tokens per page.
        eviction: `lru` (least recently used) or `lfu` (least often used, then least recently).
        listener: told of stored and removed blocks.
    """

    def __init__(
        self, page_size: int, eviction: Literal["lru", "lfu"] = "lru", listener: Listener | None = None
    ) -> None:
        self.page_size = page_size
        self.size = 0
        """Pages in the tree."""
        self.locked = 0
        """Pages in locked nodes."""
        self.version = 0
        """Rises whenever the answers of `match` may change."""
        self._page_bytes = page_size * TOKEN_BYTES
        self._lfu = eviction == "lfu"
        self._listener = listener
        self._roots: dict[str, Root] = {}
        self._heap: list[tuple[int, int, int, Node]] = []
        self._clock = count(1)
        self._serials = count(1)

    @property
    def evictable(self) -> int:
        """Pages that `evict` can free."""
        return self.size - self.locked

    def match(self, tokens: NDArray[np.int32], namespace: str = "") -> Match:
        """The longest cached prefix of whole pages. Counts as a use. Lock the node to keep it."""
        data = self._whole_pages(tokens)
        node: Node = self._root(namespace)
        pages: list[int] = []
        offset = 0
        while offset < len(data):
            child = node.children.get(data[offset : offset + self._page_bytes])
            if child is None:
                break
            shared = self._common(child.key, data, offset)
            if shared < len(child.key):
                child = self._split(child, shared)
            self._touch(child)
            pages += child.pages
            node, offset = child, offset + shared
        return Match(pages, node)

    def peek(self, tokens: NDArray[np.int32], namespace: str = "") -> Peek:
        """What `match` would find. Changes nothing."""
        node: Node | None = self._roots.get(namespace)
        data = self._whole_pages(tokens)
        offset = unlocked = 0
        path: list[int] = []
        while node is not None and offset < len(data):
            node = node.children.get(data[offset : offset + self._page_bytes])
            if node is None:
                break
            path.append(node.serial)
            shared = self._common(node.key, data, offset)
            offset += shared
            unlocked += 0 if node.lock else shared
            if shared < len(node.key):
                break
        return Peek(offset // self._page_bytes, unlocked // self._page_bytes, path)

    def insert(self, node: Node, tokens: NDArray[np.int32], pages: list[int]) -> Inserted:
        """Adds `pages`, which hold the KV of `tokens`, behind `node`.

        The tree takes the pages that it lacks. The others stay the caller's, and come back as `duplicates`.

        Args:
            node: from `match`, `insert` or `root`.
            tokens: int32 [len(pages) * page_size].
        """
        data = self._whole_pages(tokens)
        duplicates: list[int] = []
        done = 0
        while done < len(pages):
            offset = done * self._page_bytes
            child = node.children.get(data[offset : offset + self._page_bytes])
            if child is None:
                leaf = self._grow(node, tokens[done * self.page_size :], data[offset:], pages[done:])
                return Inserted(leaf, duplicates)
            shared = self._common(child.key, data, offset)
            if shared < len(child.key):
                child = self._split(child, shared)
            self._touch(child)
            mine = pages[done : done + len(child.pages)]
            duplicates += [page for page, theirs in zip(mine, child.pages, strict=True) if page != theirs]
            node, done = child, done + len(child.pages)
        return Inserted(node, duplicates)

    def root(self, namespace: str = "") -> Node:
        """Where insertions of whole prompts begin."""
        return self._root(namespace)

    # -- locks --

    def lock(self, node: Node) -> None:
        """Keeps `node` and everything above it."""
        self._lock_until(node, None)

    def unlock(self, node: Node) -> None:
        """Takes one `lock` back."""
        step: Node | None = node
        while step is not None:
            step.lock -= 1
            if step.lock == 0:
                self.locked -= len(step.pages)
                self._offer(step)
            step = step.parent

    def move_lock(self, above: Node, below: Node) -> None:
        """Moves one lock from `above` to `below`, which is `above` or somewhere under it."""
        self._lock_until(below, above)

    def _lock_until(self, node: Node, stop: Node | None) -> None:
        step: Node | None = node
        while step is not stop and step is not None:
            if step.lock == 0:
                self.locked += len(step.pages)
            step.lock += 1
            step = step.parent

    # -- eviction --

    def evict(self, wanted: int) -> list[int]:
        """Frees `wanted` pages, or all that can be, from the tails of leaves; returns their ids."""
        freed: list[int] = []
        while len(freed) < wanted and self._heap:
            node = self._pop_leaf()
            if node is None:
                continue
            cut = min(wanted - len(freed), len(node.pages))
            freed += self._cut(node, cut)
        return freed

    def clear(self) -> list[int]:
        """Evicts everything that is not locked."""
        return self.evict(self.evictable)

    def reset(self) -> None:
        """Forgets everything, locks too; the caller owns all pages again and tells the listener."""
        self._roots.clear()
        self._heap.clear()
        self.size = self.locked = 0
        self.version += 1

    def nodes(self) -> Iterator[Node]:
        """Every node, roots too, parents first."""
        stack: list[Node] = list(self._roots.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check(self, held: Iterable[Node]) -> list[str]:
        """What is wrong with the tree's own books, one sentence each.

        Args:
            held: the nodes that are locked, as often as they are.
        """
        problems = []
        locks: Counter[int] = Counter()
        for end in held:
            step: Node | None = end
            while step is not None:
                locks[id(step)] += 1
                step = step.parent
        size = locked = 0
        for node in self.nodes():
            size += len(node.pages)
            locked += len(node.pages) if node.lock else 0
            holders = locks[id(node)]
            if node.lock != holders:
                problems.append(f"a node of {len(node.pages)} pages has {node.lock} locks for {holders} holders")
            if len(node.key) != len(node.pages) * self._page_bytes or len(node.hashes) != len(node.pages):
                problems.append(f"a node of {len(node.pages)} pages has {len(node.key)} bytes of tokens")
        if (size, locked) != (self.size, self.locked):
            problems.append(f"counted {size} pages, {locked} locked; the books say {self.size}, {self.locked}")
        return problems

    # -- inside --

    def _whole_pages(self, tokens: NDArray[np.int32]) -> bytes:
        return tokens[: len(tokens) // self.page_size * self.page_size].tobytes()

    def _root(self, namespace: str) -> Root:
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = Root(namespace)
        return root

    def _common(self, key: bytes, data: bytes, offset: int) -> int:
        """Bytes of whole pages that `key` and ``data[offset:]`` share at their start."""
        length = min(len(key), len(data) - offset)
        if data[offset : offset + length] == key[:length]:
            return length
        mine = np.frombuffer(key, "<i4", length // TOKEN_BYTES)
        theirs = np.frombuffer(data, "<i4", length // TOKEN_BYTES, offset)
        return int((mine != theirs).argmax()) // self.page_size * self._page_bytes

    def _grow(self, node: Node, tokens: NDArray[np.int32], data: bytes, pages: list[int]) -> Node:
        """A new leaf under `node`; `data` is `tokens` as bytes."""
        if isinstance(node, Root):
            hashes = block_hashes(tokens, self.page_size, node.namespace)
        else:
            hashes = block_hashes(tokens, self.page_size, parent=int(node.hashes[-1]))
        leaf = Node(node, data, pages, hashes, node.end + len(pages))
        leaf.serial = next(self._serials)
        node.children[data[: self._page_bytes]] = leaf
        self.size += len(pages)
        self.version += 1
        self._touch(leaf)
        self._offer(leaf)
        if self._listener is not None:
            self._listener.stored(hashes)
        return leaf

    def _split(self, node: Node, at: int) -> Node:
        """Cuts `node` behind `at` bytes; returns the new upper part."""
        pages = at // self._page_bytes
        parent = node.parent
        assert parent is not None  # noqa: S101  roots have no key, so they are never split
        upper = Node(parent, node.key[:at], node.pages[:pages], node.hashes[:pages], parent.end + pages)
        upper.serial = next(self._serials)
        upper.lock, upper.hits, upper.last_used = node.lock, node.hits, node.last_used
        parent.children[upper.key[: self._page_bytes]] = upper
        node.parent, node.key, node.pages, node.hashes = upper, node.key[at:], node.pages[pages:], node.hashes[pages:]
        upper.children[node.key[: self._page_bytes]] = node
        self.version += 1
        return upper

    def _touch(self, node: Node) -> None:
        node.last_used = next(self._clock)
        node.hits += 1

    def _rank(self, node: Node) -> tuple[int, int]:
        return (node.hits if self._lfu else 0, node.last_used)

    def _offer(self, node: Node) -> None:
        """Puts an unlocked leaf up for eviction; drops an unlocked, empty root."""
        if node.lock or node.children:
            return
        if isinstance(node, Root):
            self._roots.pop(node.namespace, None)
        elif not node.queued:
            node.queued = True
            heapq.heappush(self._heap, (*self._rank(node), node.serial, node))

    def _pop_leaf(self) -> Node | None:
        """The next leaf to evict from; None if the heap's entry was out of date."""
        hits, used, _serial, node = heapq.heappop(self._heap)
        node.queued = False
        if node.lock or node.children or not node.pages:
            return None  # offered again when it is next unlocked or bare
        if (hits, used) != self._rank(node):
            self._offer(node)  # used since: ranks only rise, so a late look is enough
            return None
        return node

    def _cut(self, node: Node, count: int) -> list[int]:
        """Takes the last `count` pages off a leaf."""
        keep = len(node.pages) - count
        freed, gone = node.pages[keep:], node.hashes[keep:]
        parent = node.parent
        assert parent is not None  # noqa: S101  roots are never offered
        if keep == 0:
            del parent.children[node.key[: self._page_bytes]]
        node.key, node.pages, node.hashes = node.key[: keep * self._page_bytes], node.pages[:keep], node.hashes[:keep]
        node.end -= count
        self.size -= count
        self.version += 1
        self._offer(node if keep else parent)
        if self._listener is not None:
            self._listener.removed(gone)
        return freed

"""The prefix cache: a radix tree over whole KV pages.

    root(namespace) ── [p0 p1 p2] ──┬── [p3]            an edge's node holds whole pages of tokens and their page ids,
                                    └── [p7 p8 p9]      one for each group; siblings differ in their first page

A reference locks its node and every node up to the root, so a node without locks has none below it: all pages of
unlocked nodes can be evicted, leaves first.

A window's pages have a life of their own (`WindowPages`): those that nobody reads may go anywhere in the tree, and the
others of the same tokens stay. A prefix can be gone on from where all windows have what they show there. A leaf without
any page of some window can't, nor can what is left above it: these are dropped as soon as nobody holds them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.leaf_queue import LeafQueue
from radixmesh.services.scheduler.memory.pages import NONE
from radixmesh.services.scheduler.memory.radix_node import Inserted, Listener, Match, Node, Peek, Root
from radixmesh.services.scheduler.memory.window_pages import WindowPages
from radixmesh.services.scheduler.memory.windows import Windows, there
from radixmesh.shared.prefix_hash import block_hashes

TOKEN_BYTES = 4


class RadixTree:
    """Maps prefixes, in namespaces, to pages.

    Args:
        page_size: tokens per page, of all groups.
        eviction: `lru` (least recently used) or `lfu` (least often used, then least recently), but for windows' pages.
        listener: told of stored and removed blocks.
        windows: by group, how many tokens a query sees; None: all.
    """

    def __init__(
        self,
        page_size: int,
        eviction: Literal["lru", "lfu"] = "lru",
        listener: Listener | None = None,
        windows: Sequence[int | None] = (None,),
    ) -> None:
        self.page_size = page_size
        self.size = 0
        """Pages of tokens in the tree: of each group, but for windows' pages that are gone."""
        self.locked = 0
        """Those in locked nodes."""
        self._moving = Windows(windows, page_size)
        self.windows = self._moving.by_group
        """By group; None: its pages live as long as the nodes."""
        self.version = 0
        """Rises whenever the answers of `match` may change."""
        self._page_bytes = page_size * TOKEN_BYTES
        self._listener = listener
        self._roots: dict[str, Root] = {}
        self._leaves = LeafQueue(lfu=eviction == "lfu")
        self._serials = count(1)
        self._freed: list[list[int]] = [[] for _ in windows]

    def evictable(self, group: int = 0) -> int:
        """Pages of a group that `evict` can free."""
        window = self.windows[group]
        return self.size - self.locked if window is None else window.idle

    def cached(self, group: int = 0) -> int:
        """Pages of a group that are the tree's."""
        window = self.windows[group]
        return self.size if window is None else len(window)

    def match(self, tokens: NDArray[np.int32], namespace: str = "") -> Match:
        """The longest cached prefix of whole pages to go on from. Counts as a use. Lock what is to be kept of it."""
        path, size = self._walk(self._whole_pages(tokens), namespace)
        node: Node = self._root(namespace)
        pages: list[list[int]] = [[] for _ in self.windows]
        for child in path:
            if node.end == size:
                break
            if child.end > size:
                child = self._split(child, (size - node.end) * self._page_bytes)
            self._leaves.touch(child)
            for found, own in zip(pages, child.pages, strict=True):
                found += own
            node = child
        for group, window in self._moving:
            behind = max(0, size - window.reach)
            pages[group][:behind] = [NONE] * behind
        return Match(size, pages, node)

    def peek(self, tokens: NDArray[np.int32], namespace: str = "") -> Peek:
        """What `match` would find. Changes nothing."""
        path, size = self._walk(self._whole_pages(tokens), namespace)
        serials: list[int] = []
        unlocked = start = 0
        for node in path:
            if start == size:
                break
            serials.append(node.serial)
            end = min(node.end, size)
            unlocked += 0 if node.lock else end - start
            start = end
        by_group = [unlocked] * len(self.windows)
        for group, window in self._moving:
            by_group[group] = sum(map(window.is_idle, window.shown(path, size, group)))
        return Peek(size, by_group, serials)

    def insert(self, node: Node, tokens: NDArray[np.int32], pages: list[list[int]]) -> Inserted:
        """Adds `pages`, which hold the KV of `tokens`, behind `node`.

        The tree takes the pages that it lacks. The others stay the caller's, and come back as `duplicates`.

        Args:
            node: from `match`, `insert` or `root`.
            tokens: int32 [pages * page_size].
            pages: by group, as many for each; `NONE` where a window has moved on.
        """
        data = self._whole_pages(tokens)
        duplicates: list[list[int]] = [[] for _ in self.windows]
        done, total = 0, len(pages[0])
        while done < total:
            offset = done * self._page_bytes
            child = node.children.get(data[offset : offset + self._page_bytes])
            if child is None:
                fresh = [part[done:] for part in pages] if done else pages
                leaf = self._grow(node, tokens[done * self.page_size :], data[offset:], fresh)
                return Inserted(leaf, duplicates)
            shared = self._common(child.key, data, offset)
            if shared < len(child.key):
                child = self._split(child, shared)
            self._leaves.touch(child)
            size = child.size
            for found, window, own, part in zip(duplicates, self.windows, child.pages, pages, strict=True):
                mine = part[done : done + size]
                if window is not None and window.refill(child, own, mine):
                    self.version += 1
                found += [page for page, theirs in zip(mine, own, strict=True) if page not in (theirs, NONE)]
            node, done = child, done + size
        return Inserted(node, duplicates)

    def root(self, namespace: str = "") -> Node:
        """Where insertions of whole prompts begin."""
        return self._root(namespace)

    # -- locks --

    def lock(self, node: Node) -> None:
        """Keeps `node` and everything above it."""
        self._lock_until(node, None)

    def unlock(self, node: Node) -> None:
        """Takes one `lock` back. See `take_freed`."""
        step: Node | None = node
        while step is not None:
            step.lock -= 1
            if step.lock == 0:
                self.locked -= step.size
                self._offer(step)
            step = step.parent

    def move_lock(self, above: Node, below: Node) -> None:
        """Moves one lock from `above` to `below`, which is `above` or somewhere under it."""
        self._lock_until(below, above)

    def _lock_until(self, node: Node, stop: Node | None) -> None:
        step: Node | None = node
        while step is not stop and step is not None:
            if step.lock == 0:
                self.locked += step.size
            step.lock += 1
            step = step.parent

    # -- eviction --

    def evict(self, wanted: int, group: int = 0) -> list[list[int]]:
        """Frees `wanted` pages of a group, or all that can be; returns them, and others that went along, by group.

        From the tails of leaves; a window's, whichever has been idle for longest.
        """
        window, freed = self.windows[group], self._freed
        if window is None:
            while (short := wanted - len(freed[group])) > 0 and (leaf := self._leaves.pop()) is not None:
                self._offer(self._cut(leaf, min(short, leaf.size)))
        else:
            while len(freed[group]) < wanted and window.idle:
                self._hollow_out(group, window)
        return self.take_freed()

    def clear(self) -> list[list[int]]:
        """Evicts everything that is not locked."""
        while (leaf := self._leaves.pop()) is not None:
            self._offer(self._cut(leaf, leaf.size))
        for group, window in self._moving:
            while window.idle:
                self._hollow_out(group, window)
        return self.take_freed()

    def take_freed(self) -> list[list[int]]:
        """Pages, by group, that the tree no longer has since this was last asked: the caller's now."""
        freed, self._freed = self._freed, [[] for _ in self.windows]
        return freed

    def reset(self) -> None:
        """Forgets everything, locks too; the caller owns all pages again and tells the listener."""
        self._roots.clear()
        self._leaves.clear()
        for _, window in self._moving:
            window.reset()
        self.take_freed()
        self.size = self.locked = 0
        self.version += 1

    def nodes(self) -> Iterator[Node]:
        """Every node, roots too, parents first."""
        stack: list[Node] = list(self._roots.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())

    def check(self, held: Iterable[Node], read: Sequence[Iterable[int]] = ((),)) -> list[str]:
        """What is wrong with the tree's own books, one sentence each.

        Args:
            held: the nodes that are locked, as often as they are.
            read: by group, the pages of windows that are locked, as often as they are.
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
            size += node.size
            locked += node.size if node.lock else 0
            holders = locks[id(node)]
            if node.lock != holders:
                problems.append(f"a node of {node.size} pages has {node.lock} locks for {holders} holders")
            if len(node.key) != node.size * self._page_bytes or any(len(part) != node.size for part in node.pages):
                problems.append(f"a node of {node.size} pages has {len(node.key)} bytes of tokens")
        if (size, locked) != (self.size, self.locked):
            problems.append(f"counted {size} pages, {locked} locked; the books say {self.size}, {self.locked}")
        return problems + self._moving.check([node for node in self.nodes() if node.size], read)

    # -- inside --

    def _whole_pages(self, tokens: NDArray[np.int32]) -> bytes:
        return tokens[: len(tokens) // self.page_size * self.page_size].tobytes()

    def _walk(self, data: bytes, namespace: str) -> tuple[list[Node], int]:
        """The nodes on the way along `data`, and how many of its pages there are to go on from."""
        node: Node | None = self._roots.get(namespace)
        offset = 0
        path: list[Node] = []
        while node is not None and offset < len(data):
            node = node.children.get(data[offset : offset + self._page_bytes])
            if node is None:
                break
            path.append(node)
            shared = self._common(node.key, data, offset)
            offset += shared
            if shared < len(node.key):
                break
        size = offset // self._page_bytes
        return path, self._moving.usable(path, size) if self._moving else size

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

    def _grow(self, node: Node, tokens: NDArray[np.int32], data: bytes, pages: list[list[int]]) -> Node:
        """A new leaf under `node`; `data` is `tokens` as bytes."""
        if isinstance(node, Root):
            hashes = block_hashes(tokens, self.page_size, node.namespace)
        else:
            hashes = block_hashes(tokens, self.page_size, parent=int(node.hashes[-1]))
        leaf = Node(node, data, pages, hashes, node.end + len(hashes))
        leaf.serial = next(self._serials)
        node.children[data[: self._page_bytes]] = leaf
        for group, window in self._moving:
            window.add(there(pages[group]), leaf)
        self.size += leaf.size
        self.version += 1
        self._leaves.touch(leaf)
        self._leaves.add(leaf)
        if self._listener is not None:
            self._listener.stored(hashes)
        return leaf

    def _split(self, node: Node, at: int) -> Node:
        """Cuts `node` behind `at` bytes; returns the new upper part."""
        size = at // self._page_bytes
        parent = node.parent
        assert parent is not None  # noqa: S101  roots have no key, so they are never split
        above, below = [part[:size] for part in node.pages], [part[size:] for part in node.pages]
        upper = Node(parent, node.key[:at], above, node.hashes[:size], parent.end + size)
        upper.serial = next(self._serials)
        upper.lock, upper.hits, upper.last_used = node.lock, node.hits, node.last_used
        parent.children[upper.key[: self._page_bytes]] = upper
        node.parent, node.key, node.pages, node.hashes = upper, node.key[at:], below, node.hashes[size:]
        upper.children[node.key[: self._page_bytes]] = node
        for group, window in self._moving:
            window.move(there(above[group]), upper)
        self.version += 1
        return upper

    def _offer(self, node: Node) -> None:
        """Puts an unlocked leaf up for eviction; drops it if it is of no use, or an empty root."""
        while not (node.lock or node.children):
            if isinstance(node, Root):
                self._roots.pop(node.namespace, None)
                return
            if not self._moving.hollow(node):
                self._leaves.add(node)
                return
            node = self._cut(node, node.size)

    def _hollow_out(self, group: int, window: WindowPages) -> None:
        """Frees the window's page that has been idle for longest."""
        page, node = window.pop()
        pages = node.pages[group]
        pages[pages.index(page)] = NONE
        self._freed[group].append(page)
        self.version += 1
        if not (node.lock or node.children) and self._moving.hollow(node):
            self._offer(node)

    def _cut(self, node: Node, count: int) -> Node:
        """Frees the last `count` pages of a leaf. Returns what is a leaf now, perhaps: to be offered."""
        keep = node.size - count
        gone = node.hashes[keep:]
        parent = node.parent
        assert parent is not None  # noqa: S101  roots are never cut
        for group, window in self._moving:
            for page in there(node.pages[group][keep:]):
                window.remove(page)
        for freed, part in zip(self._freed, node.pages, strict=True):
            freed += part[keep:] if not self._moving else there(part[keep:])
        if keep == 0:
            del parent.children[node.key[: self._page_bytes]]
        node.key, node.hashes = node.key[: keep * self._page_bytes], node.hashes[:keep]
        node.pages = [part[:keep] for part in node.pages]
        node.end -= count
        self.size -= count
        self.version += 1
        if self._listener is not None:
            self._listener.removed(gone)
        return node if keep else parent

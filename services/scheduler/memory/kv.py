"""KV memory: the pages of all groups and the prefix tree together, and how a sequence holds its part of them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.holding import Holding, Holdings
from radixmesh.services.scheduler.memory.leases import Leases
from radixmesh.services.scheduler.memory.pages import NONE, PageAllocator
from radixmesh.services.scheduler.memory.radix_node import Listener, Peek
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.services.scheduler.memory.window_pages import WindowPages
from radixmesh.shared.kv_windows import longest_sequence
from radixmesh.shared.messages import KvGroup, KvKind

Tokens = Callable[[int, int], NDArray[np.int32]]
"""A sequence's tokens start <= position < stop, int32."""

_PAGED = (KvKind.FULL, KvKind.LATENT, KvKind.WINDOW)


def unfit_groups(groups: Sequence[KvGroup]) -> str:
    """Why these groups cannot be served, in a few words; empty if they can."""
    if not groups:
        return "it names no group of layers"
    for number, group in enumerate(groups):
        if group.kind not in _PAGED:
            return f"group {number} is of the kind {group.kind.value!r}, which is not served yet"
        for name in ("page_size", "num_pages"):
            if getattr(group, name) < 1:
                return f"group {number}'s {name} is {getattr(group, name)}"
        if (group.kind is KvKind.WINDOW) != (group.window > 0):
            return f"group {number} is of the kind {group.kind.value!r} and has a window of {group.window}"
        if group.page_size != groups[0].page_size:
            return f"group {number} has pages of {group.page_size} tokens, and group 0 of {groups[0].page_size}"
    return ""


class KvMemory:
    """All pages of a replica.

    A page is free, or the tree's, or a sequence's own. Sequences hold the tree's pages by locks. All groups have pages
    of one size, so that page number n of a sequence holds the same tokens in each, and a node of the tree too.

    Why a page may be given away as soon as it is free here, although plans in flight still write to it, or read it:

        plan     n          n+1         n+2
        slot 3   decode     decode      release 3; its page 7 goes to slot 5
        report               n: slot 3 ended ──┘
        worker   ... writes 7 ... writes 7 ... | slot 5 writes 7

    The worker runs plans strictly in order, and whatever becomes free here is granted only in plans not yet made. So
    does a page that a window has left behind: no pass of a plan not yet made reads it (`slide`).
    """

    def __init__(
        self, groups: Sequence[KvGroup], eviction: str, prefix_cache: bool, listener: Listener | None = None
    ) -> None:
        self.page_size = groups[0].page_size
        self.prefix_cache = prefix_cache
        self.evicted = 0
        """Pages evicted so far."""
        windows = [group.window or None for group in groups]
        self.tree = RadixTree(self.page_size, "lfu" if eviction == "lfu" else "lru", listener, windows)
        self.pools = [PageAllocator(group.num_pages) for group in groups]
        """By group."""
        self.leases = Leases(self.pools)
        self.groups = range(len(groups))
        bounds = (longest_sequence(group.num_pages, group.window or None, group.page_size) for group in groups)
        self.longest = min((bound for bound in bounds if bound is not None), default=None)
        """Tokens that a sequence can hold KV of when it has all memory; None: no bound."""
        self._moving = [(group, window) for group, window in enumerate(self.tree.windows) if window is not None]
        self.moving = bool(self._moving)
        """Whether there are windows, so that sequences give pages back while they run."""

    @property
    def total(self) -> int:
        return sum(pool.total for pool in self.pools)

    @property
    def free(self) -> int:
        return sum(pool.available for pool in self.pools)

    @property
    def cached(self) -> int:
        """Pages that are the tree's."""
        return sum(map(self.tree.cached, self.groups))

    def available(self, group: int) -> int:
        """Pages of a group that `take` can give: free, or cached and not locked. Leased ones count as neither."""
        pool = self.pools[group]
        return max(0, pool.available + self.tree.evictable(group) - pool.leased)

    def can_take(self, count: int) -> bool:
        """Whether there are `count` pages of each group."""
        return count == 0 or all(count <= self.available(group) for group in self.groups)

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    # -- what sequences hold --

    def nothing(self) -> Holdings:
        """What a sequence holds that has not been admitted."""
        return Holdings([Holding() for _ in self.groups])

    def peek(self, prompt: NDArray[np.int32], namespace: str) -> Peek:
        """The cached prefix that `attach` would find."""
        return self.tree.peek(prompt[:-1], namespace)

    def fits(self, tokens: int, cached: Peek, spare: int, pledged: Sequence[int] = ()) -> bool:
        """Whether a prompt of `tokens`, of which some are cached, finds room, with `spare` pages left in each group.

        Args:
            pledged: by group, pages that others of which the prompt is not yet through will want; see `wanted`.
        """
        lacking = self.pages_for(tokens) - cached.pages
        for group, unlocked in enumerate(cached.unlocked):
            wanted = self._at_once(group, lacking + unlocked) + spare + (pledged[group] if pledged else 0)
            if wanted > self.available(group):
                return False
        return True

    def would_fit(self, tokens: int, leaving: Sequence[Holdings]) -> bool:
        """Whether a prompt of `tokens` might find room if those in `leaving` were gone."""
        pages = self.pages_for(tokens)
        return all(
            self._at_once(group, pages)
            <= self.available(group) + sum(len(it.groups[group].pages) - it.groups[group].first for it in leaving)
            for group in self.groups
        )

    def wanted(self, held: Holdings, tokens: int) -> list[int]:
        """By group: pages that a sequence which has begun lacks for a prompt of `tokens`."""
        total = self.pages_for(tokens)
        return [
            max(0, self._at_once(group, total - holding.first) - (len(holding.pages) - holding.first))
            for group, holding in enumerate(held.groups)
        ]

    def _at_once(self, group: int, pages: int) -> int:
        """Of `pages` that a sequence fills, those that it must have at one time."""
        window = self.tree.windows[group]
        return pages if window is None else min(pages, window.reach + 1)

    def attach(self, held: Holdings, prompt: NDArray[np.int32], namespace: str, max_pages: int) -> None:
        """Gives a waiting sequence the cached prefix of its prompt: whole pages, up to `max_pages`.

        At least the prompt's last token is left to compute, for its logits.
        """
        if not self.prefix_cache:
            return
        most = min((len(prompt) - 1) // self.page_size, max_pages)
        match = self.tree.match(prompt[: most * self.page_size], namespace)
        self.tree.lock(match.node)
        held.node, held.tree_pages = match.node, match.size
        for holding, pages in zip(held.groups, match.pages, strict=True):
            holding.pages = pages
        for group, window in self._moving:
            holding = held.groups[group]
            holding.first = holding.granted = max(0, match.size - window.reach)
            window.lock(holding.pages[holding.first :])

    def take(self, group: int, count: int) -> list[int]:
        """`count` pages of a group, evicting from the tree as needed. Call with ``count <= available(group)``.

        Raises:
            IndexError: there are fewer.
        """
        pool = self.pools[group]
        while (short := count - pool.available) > 0 and self.tree.evictable(group):
            freed = self.tree.evict(short, group)
            self.evicted += len(freed[group])
            self._give(freed)
        return pool.take(count)

    def reserve(self, held: Holdings, pages: int) -> None:
        """Gives it pages of its own, up to `pages` in all, of the groups that keep all of them."""
        for group in self.groups:
            if self.tree.windows[group] is None:
                self._extend(group, held.groups[group], pages)

    def can_reserve(self, held: Holdings, pages: int) -> bool:
        """Whether there are as many."""
        return all(
            pages - len(held.groups[group].pages) <= self.available(group)
            for group in self.groups
            if self.tree.windows[group] is None
        )

    def extend(self, held: Holdings, pages: int) -> None:
        """Gives it pages of its own, up to `pages` in all, of every group. Call `slide` before, to need fewer."""
        for group, holding in enumerate(held.groups):
            self._extend(group, holding, pages)

    def room(self, held: Holdings, spare: int) -> int | None:
        """Tokens up to which `extend` can go now, with `spare` pages left in each window's group; None: no bound."""
        if not self._moving:
            return None
        pages = [len(held.groups[group].pages) + max(0, self.available(group) - spare) for group, _ in self._moving]
        return min(pages) * self.page_size

    def store(self, held: Holdings, written: int, tokens: Tokens) -> None:
        """Puts the whole pages that are known to be written into the tree; the sequence goes on holding them.

        Args:
            written: tokens of which KV is known to be written.
        """
        begin, full = held.tree_pages, written // self.page_size
        if held.node is None or full <= begin:
            return
        pages = [holding.pages[begin:full] for holding in held.groups]
        inserted = self.tree.insert(held.node, tokens(begin * self.page_size, full * self.page_size), pages)
        self.tree.move_lock(held.node, inserted.node)
        for holding, duplicates in zip(held.groups, inserted.duplicates, strict=True):
            holding.duplicates.update(duplicates)
        for group, window in self._moving:
            duplicates = inserted.duplicates[group]
            window.lock(page for page in pages[group] if page != NONE and page not in duplicates)
        held.node, held.tree_pages = inserted.node, full

    def slide(self, held: Holdings, reached: int, prompt: int) -> None:
        """Gives back what the windows no longer show.

        Pages of the prompt stay until they are in the tree, for others that begin alike; there they may be evicted.

        Args:
            reached: every pass of plans not yet made begins there, or behind it.
            prompt: tokens of its prompt.
        """
        for group, window in self._moving:
            holding = held.groups[group]
            upto = min(max(0, reached - window.window + 1) // self.page_size, len(holding.pages))
            if held.node is not None and held.tree_pages < prompt // self.page_size:
                upto = min(upto, held.tree_pages)
            if upto > holding.first:
                self._give_up(group, window, held, upto)

    def detach(self, held: Holdings) -> None:
        """Takes everything from a sequence; what it has stored stays cached."""
        for pool, holding in zip(self.pools, held.groups, strict=True):
            pool.give(holding.owned(held.tree_pages))
        for group, window in self._moving:
            window.unlock(reversed(held.groups[group].shared(held.tree_pages)))  # what stands last is wanted least
        if held.node is not None:
            self.tree.unlock(held.node)
            if self._moving:
                self._give(self.tree.take_freed())
        held.clear()

    # -- the whole --

    def flush(self) -> int:
        """Forgets every cached prefix that nobody uses; returns how many pages came free."""
        freed = self.tree.clear()
        self._give(freed)
        return sum(map(len, freed))

    def reset(self) -> None:
        """Everything is free but for what is leased; only for when no sequence holds anything."""
        self.tree.reset()
        for pool in self.pools:
            pool.reset()

    def check(self, holders: Iterable[Holdings]) -> list[str]:
        """What is wrong, one sentence each; `holders` are those of all sequences with pages."""
        holders = list(holders)
        problems, read = [], []
        for group, pool in enumerate(self.pools):
            owned = [page for held in holders for page in held.groups[group].owned(held.tree_pages)]
            cached = [page for node in self.tree.nodes() if node.size for page in node.pages[group] if page != NONE]
            problems += pool.check(cached, owned)
            read.append([page for held in holders for page in held.groups[group].shared(held.tree_pages)])
        return problems + self.tree.check((held.node for held in holders if held.node is not None), read)

    # -- inside --

    def _extend(self, group: int, holding: Holding, pages: int) -> None:
        """Raises IndexError if there are not as many."""
        holding.pages += self.take(group, max(0, pages - len(holding.pages)))

    def _give(self, freed: list[list[int]]) -> None:
        for pool, pages in zip(self.pools, freed, strict=True):
            pool.give(pages)

    def _give_up(self, group: int, window: WindowPages, held: Holdings, upto: int) -> None:
        """The sequence reads none of its pages before number `upto` any more."""
        holding = held.groups[group]
        for number in range(holding.first, upto):
            page = holding.pages[number]
            if number >= held.tree_pages or page in holding.duplicates:
                holding.duplicates.discard(page)
                self.pools[group].give([page])
            else:
                window.unlock([page])
            holding.pages[number] = NONE
        holding.first, holding.granted = upto, max(holding.granted, upto)

"""KV memory: pages and the prefix tree together, and how a sequence holds its part of them."""

from collections.abc import Iterable

from radixmesh.services.scheduler.memory.pages import PageAllocator
from radixmesh.services.scheduler.memory.radix_node import Listener, Peek
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.services.scheduler.sequence import Sequence


class KvMemory:
    """All pages of a replica.

    A page is free, or the tree's, or a sequence's own. Sequences hold the tree's pages by locks.

    Why a page may be given away as soon as it is free here, although plans in flight still write to it:

        plan     n          n+1         n+2
        slot 3   decode     decode      release 3; its page 7 goes to slot 5
        report               n: slot 3 ended ──┘
        worker   ... writes 7 ... writes 7 ... | slot 5 writes 7

    The worker runs plans strictly in order, and whatever becomes free here is granted only in plans not yet made.
    """

    def __init__(
        self, num_pages: int, page_size: int, eviction: str, prefix_cache: bool, listener: Listener | None = None
    ) -> None:
        self.page_size = page_size
        self.prefix_cache = prefix_cache
        self.evicted = 0
        """Pages evicted so far."""
        self._pages = PageAllocator(num_pages)
        self.tree = RadixTree(page_size, "lfu" if eviction == "lfu" else "lru", listener)

    @property
    def total(self) -> int:
        return self._pages.total

    @property
    def free(self) -> int:
        return self._pages.available

    @property
    def available(self) -> int:
        """Pages that `take` can give: free, or cached and not locked."""
        return self._pages.available + self.tree.evictable

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def take(self, count: int) -> list[int]:
        """`count` pages, evicting from the tree as needed. Call with ``count <= available``.

        Raises:
            IndexError: there are fewer.
        """
        short = count - self._pages.available
        if short > 0:
            evicted = self.tree.evict(short)
            self.evicted += len(evicted)
            self._pages.give(evicted)
        return self._pages.take(count)

    # -- what sequences hold --

    def peek(self, seq: Sequence) -> Peek:
        """The cached prefix that `attach` would find."""
        return self.tree.peek(seq.prompt[:-1], seq.namespace)

    def attach(self, seq: Sequence, max_pages: int) -> None:
        """Gives a waiting sequence the cached prefix of its prompt: whole pages, up to `max_pages`.

        At least the prompt's last token is left to compute, for its logits.
        """
        if self.prefix_cache:
            most = min((len(seq.prompt) - 1) // self.page_size, max_pages)
            match = self.tree.match(seq.prompt[: most * self.page_size], seq.namespace)
            self.tree.lock(match.node)
            seq.node, seq.pages = match.node, list(match.pages)
        seq.tree_pages = len(seq.pages)
        seq.planned = seq.computed = seq.attached = seq.tree_pages * self.page_size

    def extend(self, seq: Sequence, count: int) -> None:
        """`count` more pages of its own."""
        seq.pages += self.take(count)

    def store(self, seq: Sequence) -> None:
        """Puts the whole pages that are known to be written into the tree; the sequence goes on holding them."""
        full = seq.stored // self.page_size
        if seq.node is None or full <= seq.tree_pages:
            return
        tokens = seq.tokens(seq.tree_pages * self.page_size, full * self.page_size)
        inserted = self.tree.insert(seq.node, tokens, seq.pages[seq.tree_pages : full])
        self.tree.move_lock(seq.node, inserted.node)
        seq.duplicates += inserted.duplicates
        seq.node, seq.tree_pages = inserted.node, full

    def detach(self, seq: Sequence, *, keep: bool = True) -> None:
        """Takes everything from a sequence; what it computed stays cached unless `keep` is false."""
        if keep:
            self.store(seq)
        self._pages.give(seq.owned_pages())
        if seq.node is not None:
            self.tree.unlock(seq.node)
        seq.node, seq.pages, seq.duplicates = None, [], []
        seq.tree_pages = seq.planned = seq.computed = seq.granted = 0

    # -- the whole --

    def flush(self) -> int:
        """Forgets every cached prefix that nobody uses; returns how many pages came free."""
        freed = self.tree.clear()
        self._pages.give(freed)
        return len(freed)

    def reset(self) -> None:
        """Everything is free; only for when no sequence holds anything."""
        self.tree.reset()
        self._pages.reset()

    def check(self, holders: Iterable[Sequence]) -> list[str]:
        """What is wrong, one sentence each; `holders` are all sequences with pages."""
        holders = list(holders)
        owned = [page for seq in holders for page in seq.owned_pages()]
        cached = [page for node in self.tree.nodes() for page in node.pages]
        return self._pages.check(cached, owned) + self.tree.check(seq.node for seq in holders if seq.node is not None)

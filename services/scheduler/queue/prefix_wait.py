"""Prefixes that are being computed now, so that waiting prompts which share them can wait for the result."""

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.prefix_hash import block_hashes


class PendingPrefixes:
    """Counts, per block hash, the running prompts that will have it cached once their chunks are reported."""

    def __init__(self, page_size: int, min_tokens: int) -> None:
        self._page_size = page_size
        self._min_pages = max(1, min_tokens // page_size)
        self._counts: dict[int, int] = {}
        self._held: dict[Sequence, list[int]] = {}
        """By sequence: hashes not yet cached, last page first."""

    def begin(self, seq: Sequence) -> None:
        """`seq` was admitted and computes its prompt from what is cached on."""
        hashes = self._hashes(seq)[seq.held.tree_pages :].tolist()
        if hashes:
            hashes.reverse()
            self._held[seq] = hashes
            for item in hashes:
                self._counts[item] = self._counts.get(item, 0) + 1

    def advance(self, seq: Sequence) -> None:
        """More of it is cached now."""
        held = self._held.get(seq)
        if held is not None:
            self._drop(held, seq.held.tree_pages + len(held) - len(self._hashes(seq)))
            if not held:
                del self._held[seq]

    def end(self, seq: Sequence) -> None:
        """`seq` computes no longer."""
        held = self._held.pop(seq, None)
        if held is not None:
            self._drop(held, len(held))

    def shared_soon(self, seq: Sequence, cached_pages: int) -> bool:
        """Whether enough of what `seq` lacks behind its `cached_pages` is being computed for another one."""
        if not self._counts:
            return False
        last = min((len(seq.prompt) - 1) // self._page_size, cached_pages + self._min_pages)
        wanted = self._hashes(seq)[cached_pages:last].tolist()
        return bool(wanted) and all(item in self._counts for item in wanted)

    def _hashes(self, seq: Sequence) -> NDArray[np.uint64]:
        if seq.hashes is None:
            seq.hashes = block_hashes(seq.prompt, self._page_size, seq.namespace)
        return seq.hashes

    def _drop(self, held: list[int], count: int) -> None:
        for _ in range(count):
            item = held.pop()
            left = self._counts[item] - 1
            if left:
                self._counts[item] = left
            else:
                del self._counts[item]

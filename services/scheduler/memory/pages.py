"""KV pages: who has which."""

from collections.abc import Iterable

import numpy as np


class PageAllocator:
    """Hands out page ids 0 <= id < `total`, last freed first.

    Knows free pages only; `check` compares with what owners say they have.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total - 1, -1, -1))

    @property
    def available(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` pages.

        Raises:
            IndexError: there are fewer; nothing was taken.
        """
        if count > len(self._free):
            raise IndexError(f"{count} pages wanted, {len(self._free)} free")
        if count == 0:
            return []
        pages = self._free[-count:]
        del self._free[-count:]
        return pages

    def give(self, pages: list[int]) -> None:
        self._free.extend(pages)

    def reset(self) -> None:
        """Everything is free again."""
        self._free = list(range(self.total - 1, -1, -1))

    def check(self, cached: Iterable[int], owned: Iterable[int]) -> list[str]:
        """What is wrong, one sentence each: every page must be free, cached or owned by a sequence, exactly once."""
        holders = {
            name: np.fromiter(pages, np.int64)
            for name, pages in (("free", self._free), ("cached", cached), ("owned", owned))
        }
        every = np.concatenate(list(holders.values()))
        real = (every >= 0) & (every < self.total)
        counts = np.bincount(every[real], minlength=self.total)
        problems = []
        missing, doubled = np.flatnonzero(counts == 0), np.flatnonzero(counts > 1)
        if missing.size:
            problems.append(f"{missing.size} pages belong to nobody: {missing[:8].tolist()}")
        if doubled.size:
            kinds = {page: [name for name, pages in holders.items() if page in pages] for page in doubled[:8].tolist()}
            problems.append(f"{doubled.size} pages belong to several: {kinds}")
        if not real.all():
            problems.append(f"pages that do not exist: {every[~real][:8].tolist()}")
        return problems

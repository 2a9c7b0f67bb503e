"""Pages of one group: who has which."""

from collections.abc import Iterable

import numpy as np

NONE = -1
"""In a list by page number: there is no page (any more)."""


class PageAllocator:
    """Hands out page ids 0 <= id < `total`, last freed first.

    Knows free pages only; `check` compares with what owners say they have. A page that is given back while somebody has
    leased it becomes free when the last lease ends.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._leases: dict[int, int] = {}
        """By page: how many leases it has."""
        self._kept: set[int] = set()
        """Pages that were given back and are still leased."""

    @property
    def available(self) -> int:
        return len(self._free)

    @property
    def leased(self) -> int:
        """Leased pages that are somebody's: they would not be free if they were given back."""
        return len(self._leases) - len(self._kept)

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
        if self._leases:
            self._kept.update(page for page in pages if page in self._leases)
            pages = [page for page in pages if page not in self._leases]
        self._free.extend(pages)

    def lease(self, pages: Iterable[int]) -> None:
        """Keeps pages that are somebody's from becoming free, until `end_lease`; a page may be leased several times."""
        for page in pages:
            self._leases[page] = self._leases.get(page, 0) + 1

    def end_lease(self, pages: Iterable[int]) -> None:
        """Takes one `lease` of each page back."""
        for page in pages:
            left = self._leases[page] - 1
            if left:
                self._leases[page] = left
                continue
            del self._leases[page]
            if page in self._kept:
                self._kept.remove(page)
                self._free.append(page)

    def reset(self) -> None:
        """Everything is free again, but for what is leased."""
        self._kept = set(self._leases)
        self._free = [page for page in range(self.total - 1, -1, -1) if page not in self._leases]

    def missing(self, pages: Iterable[int]) -> list[int]:
        """Those of `pages` that nobody can have: they are free, waiting for a lease to end, or do not exist."""
        idle = self._kept.union(self._free)
        return [page for page in pages if page in idle or not 0 <= page < self.total]

    def check(self, cached: Iterable[int], owned: Iterable[int]) -> list[str]:
        """What is wrong, one sentence each: every page must be free, cached, owned by a sequence, or given back and
        leased, exactly once."""
        holders = {
            name: np.fromiter(pages, np.int64)
            for name, pages in (("free", self._free), ("cached", cached), ("owned", owned), ("leased", self._kept))
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

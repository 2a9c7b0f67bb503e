"""KV pages: who has which."""

from collections import Counter
from collections.abc import Iterable


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
        holders = {"free": Counter(self._free), "cached": Counter(cached), "owned": Counter(owned)}
        problems = []
        seen: Counter[int] = Counter()
        for counts in holders.values():
            seen.update(counts)
        missing = [page for page in range(self.total) if page not in seen]
        if missing:
            problems.append(f"{len(missing)} pages belong to nobody: {missing[:8]}")
        doubled = [page for page, count in seen.items() if count > 1]
        if doubled:
            kinds = {page: [name for name, counts in holders.items() if page in counts] for page in doubled[:8]}
            problems.append(f"{len(doubled)} pages belong to several: {kinds}")
        strange = [page for page in seen if not 0 <= page < self.total]
        if strange:
            problems.append(f"pages that do not exist: {strange[:8]}")
        return problems

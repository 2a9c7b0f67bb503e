"""Pages that somebody reads or writes beside the plans: a hand-over to another worker, a copy to another tier.

The page's holder promises nothing: while the copy is under way the sequence may end, and the tree may evict. So a lease
keeps its pages from being given to others, and changes nothing else. Leases end one by one, or all of an owner's when
that one is gone. They do not outlive the claim: a scheduler's memory is made anew for each epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from radixmesh.services.scheduler.memory.pages import PageAllocator


@dataclass(frozen=True, slots=True)
class Lease:
    """Pages by group, kept for `owner`."""

    owner: str
    pages: tuple[tuple[int, ...], ...]


class Leases:
    """The leases on the pages of `pools`, one per group."""

    def __init__(self, pools: Sequence[PageAllocator]) -> None:
        self._pools = pools
        self._numbers = count()
        self._open: dict[int, Lease] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, owner: str, pages: Sequence[Sequence[int]]) -> int:
        """Leases `pages`, by group, which are a sequence's or the tree's. Returns the lease's number.

        Raises:
            ValueError: there is a page among them that nobody has; nothing was leased.
        """
        lease = Lease(owner, tuple(tuple(dict.fromkeys(part)) for part in pages))
        for group, (pool, part) in enumerate(zip(self._pools, lease.pages, strict=True)):
            if missing := pool.missing(part):
                raise ValueError(f"pages of group {group} that nobody has cannot be leased: {missing[:8]}")
        for pool, part in zip(self._pools, lease.pages, strict=True):
            pool.lease(part)
        number = next(self._numbers)
        self._open[number] = lease
        return number

    def end(self, number: int) -> None:
        """What is done is over. Does nothing if the lease has ended already."""
        lease = self._open.pop(number, None)
        if lease is not None:
            for pool, part in zip(self._pools, lease.pages, strict=True):
                pool.end_lease(part)

    def drop(self, owner: str) -> None:
        """Ends all leases of an owner that is gone."""
        for number in [number for number, lease in self._open.items() if lease.owner == owner]:
            self.end(number)

"""The windows of all groups, as far as the tree asks of them together."""

from collections.abc import Iterable, Iterator, Sequence

from radixmesh.services.scheduler.memory.pages import NONE
from radixmesh.services.scheduler.memory.radix_node import Node
from radixmesh.services.scheduler.memory.window_pages import WindowPages


class Windows:
    """Iterates over the groups that have a window, with their numbers; true if there are any."""

    def __init__(self, windows: Sequence[int | None], page_size: int) -> None:
        """`windows`: by group, how many tokens a query sees; None: all."""
        self.by_group = [None if window is None else WindowPages(window, page_size) for window in windows]
        self._moving = [(group, window) for group, window in enumerate(self.by_group) if window is not None]

    def __bool__(self) -> bool:
        return bool(self._moving)

    def __iter__(self) -> Iterator[tuple[int, WindowPages]]:
        return iter(self._moving)

    def usable(self, path: list[Node], size: int) -> int:
        """The most pages of tokens along `path`, up to `size`, of which every window has what it shows behind them."""
        runs = [0] * len(self._moving)  # pages without a gap up to here
        usable = at = 0
        for node in path:
            count = min(node.size, size - at)
            parts = [node.pages[group][:count] for group, _ in self._moving]
            if any(NONE in part for part in parts):
                for pages in zip(*parts, strict=True):
                    at += 1
                    runs = [0 if page == NONE else run + 1 for page, run in zip(pages, runs, strict=True)]
                    usable = at if self._suffice(runs, at) else usable
                continue
            at += count
            runs = [run + count for run in runs]
            usable = at if self._suffice(runs, at) else usable  # else no page of this node does, as runs only grow
        return usable

    def hollow(self, leaf: Node) -> bool:
        """Whether some window has no page of it, so that nothing can go on from within."""
        return any(max(leaf.pages[group]) == NONE for group, _ in self._moving)

    def check(self, nodes: list[Node], read: Sequence[Iterable[int]]) -> list[str]:
        """What is wrong, one sentence each; `read`: by group, the pages that sequences read, as often as they do."""
        problems = []
        for group, window in self._moving:
            where = {page: node for node in nodes for page in there(node.pages[group])}
            problems += window.check(where, read[group])
        return problems

    def _suffice(self, runs: list[int], at: int) -> bool:
        return all(run >= min(at, window.reach) for run, (_, window) in zip(runs, self._moving, strict=True))


def there(pages: list[int]) -> list[int]:
    """Those of a window's pages that are not gone."""
    return [page for page in pages if page != NONE]

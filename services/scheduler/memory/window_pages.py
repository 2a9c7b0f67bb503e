"""The pages of a window's group that the tree has."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator

from radixmesh.services.scheduler.memory.pages import NONE
from radixmesh.services.scheduler.memory.radix_node import Node
from radixmesh.shared.kv_windows import window_reach


class WindowPages:
    """Which node each page lies in, who reads it, and which goes first when memory is wanted.

    A sequence reads only what its window still shows, page by page, so readers are counted by page. One without readers
    is `idle`: it may go at any time, the longest idle first, and its node stays. That order makes a prompt's early
    pages go before those that a sequence which continues it would need.

    Args:
        window: tokens that a query sees, its own included.
    """

    def __init__(self, window: int, page_size: int) -> None:
        self.window = window
        self.reach = window_reach(window, page_size)
        """Pages right before a page border that must be there to go on from it, or all before it if these are fewer."""
        self._nodes: dict[int, Node] = {}
        self._readers: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def idle(self) -> int:
        """Pages that can go."""
        return len(self._idle)

    def is_idle(self, page: int) -> bool:
        return page in self._idle

    def shown(self, path: list[Node], size: int, group: int) -> Iterator[int]:
        """The pages of this window, which is the group's, that it shows behind `size` pages of tokens along `path`."""
        first = max(0, size - self.reach)
        for node in path:
            start = node.end - node.size
            if start < size and node.end > first:
                yield from node.pages[group][max(0, first - start) : size - start]

    def add(self, pages: Iterable[int], node: Node) -> None:
        """Fresh pages, of which nobody reads any yet."""
        for page in pages:
            self._nodes[page] = node
            self._idle[page] = None

    def refill(self, node: Node, own: list[int], offered: list[int]) -> bool:
        """Takes those of the `offered` pages that `node` has lost, into its `own`. Whether there were any."""
        lost = [i for i, page in enumerate(own) if page == NONE != offered[i]]
        for i in lost:
            own[i] = offered[i]
        self.add((own[i] for i in lost), node)
        return bool(lost)

    def move(self, pages: Iterable[int], node: Node) -> None:
        """They lie in `node` now."""
        for page in pages:
            self._nodes[page] = node

    def remove(self, page: int) -> None:
        """Raises KeyError if somebody reads it."""
        del self._idle[page], self._nodes[page]

    def pop(self) -> tuple[int, Node]:
        """The page that has been idle for longest, and where it was. Raises KeyError if there is none."""
        page, _ = self._idle.popitem(last=False)
        return page, self._nodes.pop(page)

    def lock(self, pages: Iterable[int]) -> None:
        """Somebody reads these."""
        for page in pages:
            readers = self._readers.get(page, 0)
            if readers == 0:
                del self._idle[page]
            self._readers[page] = readers + 1

    def unlock(self, pages: Iterable[int]) -> None:
        """Takes one `lock` of each back; the first of them is the first to go."""
        for page in pages:
            left = self._readers[page] - 1
            if left:
                self._readers[page] = left
            else:
                del self._readers[page]
                self._idle[page] = None

    def reset(self) -> None:
        self._nodes.clear()
        self._readers.clear()
        self._idle.clear()

    def check(self, where: dict[int, Node], read: Iterable[int]) -> list[str]:
        """What is wrong, one sentence each.

        Args:
            where: the pages that nodes have, with these nodes.
            read: pages that sequences read, as often as they do.
        """
        problems = []
        if where != self._nodes:
            problems.append(f"{len(where)} pages of a window lie in nodes; the books say {len(self._nodes)}")
        readers = dict(Counter(read))
        if readers != self._readers:
            problems.append(f"{len(readers)} pages of a window are read; the books say {len(self._readers)}")
        if self._idle.keys() != self._nodes.keys() - self._readers.keys():
            problems.append(f"{len(self._idle)} pages of a window are idle, which are not those that nobody reads")
        return problems

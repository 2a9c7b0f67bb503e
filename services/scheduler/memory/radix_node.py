"""What the radix tree is made of, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Listener(Protocol):
    """Hears which blocks (`prefix_hash.block_hashes` of page size) come and go."""

    def stored(self, hashes: NDArray[np.uint64]) -> None: ...

    def removed(self, hashes: NDArray[np.uint64]) -> None: ...


class Node:
    """An edge and its lower end. `split` leaves the object at the lower end, so holders keep their place."""

    __slots__ = ("children", "end", "hashes", "hits", "key", "last_used", "lock", "pages", "parent", "queued", "serial")

    def __init__(
        self, parent: "Node | None", key: bytes, pages: list[list[int]], hashes: NDArray[np.uint64], end: int
    ) -> None:
        self.parent = parent
        self.key = key
        """The edge's tokens, little-endian int32."""
        self.pages = pages
        """Page ids by group; `NONE` where a window's page is gone."""
        self.hashes = hashes
        """uint64, one per page of tokens."""
        self.end = end
        """Pages of tokens from the root through this node."""
        self.children: dict[bytes, Node] = {}
        """By their first page of tokens."""
        self.lock = 0
        self.hits = 0
        self.last_used = 0
        self.serial = 0
        self.queued = False
        """Whether the eviction heap has an entry for this node."""

    @property
    def size(self) -> int:
        """Pages of tokens on the edge."""
        return len(self.hashes)


class Root(Node):
    """The empty prefix of one namespace."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: str) -> None:
        super().__init__(None, b"", [], np.empty(0, np.uint64), 0)
        self.namespace = namespace


@dataclass(frozen=True, slots=True)
class Match:
    """A cached prefix that a sequence can go on from."""

    size: int
    """Pages of tokens."""
    pages: list[list[int]]
    """`size` page ids by group; `NONE` for those that are behind the window."""
    node: Node
    """Where it ends."""


@dataclass(frozen=True, slots=True)
class Peek:
    """A cached prefix, looked at from afar."""

    pages: int
    """Pages of tokens."""
    unlocked: list[int]
    """By group: how many of its pages nobody holds: they would no longer be evictable."""
    path: list[int]
    """Serial numbers of the nodes on the way, from the root."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """Where an insertion ends, and which pages, by group, the tree did not take, as it had others for the tokens."""

    node: Node
    duplicates: list[list[int]]

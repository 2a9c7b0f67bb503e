"""What one sequence holds of the KV memory."""

from dataclasses import dataclass, field

from radixmesh.services.scheduler.memory.radix_node import Node


@dataclass(slots=True)
class Holding:
    """Its part of one group.

        pages   [ NONE ... NONE ][ page ids ................ ]
                0            first       granted       len(pages)

    Page number n holds tokens n * page_size and on, in every group.
    """

    pages: list[int] = field(default_factory=list)
    """Ids by page number; `NONE` before `first`."""
    first: int = 0
    """Pages before it were given back, or never held: the window has moved on."""
    granted: int = 0
    """How many of `pages` the worker has been told of."""
    duplicates: set[int] = field(default_factory=set)
    """Pages among the tree's part that are its own: the tree had other pages for these tokens."""

    def owned(self, tree_pages: int) -> list[int]:
        """Ids of pages that are neither free nor the tree's."""
        return self.pages[max(tree_pages, self.first) :] + list(self.duplicates)

    def shared(self, tree_pages: int) -> list[int]:
        """Ids of the tree's pages that it reads, in order."""
        pages = self.pages[self.first : tree_pages]
        return [page for page in pages if page not in self.duplicates] if self.duplicates else pages


@dataclass(slots=True, eq=False)
class Holdings:
    """Its part of all groups. The tree's pages come first, and are the same tokens' in each group.

    pages   [ in the tree, locked by `node` ][ this sequence's own ............ ]
            0 .................... tree_pages ..................... len(pages)
    """

    groups: list[Holding]
    node: Node | None = None
    tree_pages: int = 0

    def clear(self) -> None:
        self.groups = [Holding() for _ in self.groups]
        self.node, self.tree_pages = None, 0

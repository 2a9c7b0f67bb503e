"""The prefix cache's changes, as `KvEvents` for the routers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.shared.messages import KvEvents

_BLOCKS_PER_MESSAGE = 1 << 16


class BlockLog:
    """Listens to a tree and keeps what changed since the last `take`; a block's last change wins."""

    def __init__(self, replica_id: str, epoch: int, block_size: int) -> None:
        self._replica_id = replica_id
        self._epoch = epoch
        self._block_size = block_size
        self._changes: dict[int, bool] = {}
        self._cleared = True
        """The first message of an epoch says that nothing is known."""
        self._seq = 0

    def stored(self, hashes: NDArray[np.uint64]) -> None:
        self._changes.update(dict.fromkeys(hashes.tolist(), True))

    def removed(self, hashes: NDArray[np.uint64]) -> None:
        self._changes.update(dict.fromkeys(hashes.tolist(), False))

    def clear(self) -> None:
        """All blocks are gone."""
        self._changes.clear()
        self._cleared = True

    def snapshot(self, tree: RadixTree) -> None:
        """Makes the next messages tell of everything in `tree`, and of nothing else."""
        self.clear()
        for node in tree.nodes():
            self.stored(node.hashes)

    def take(self) -> Iterator[KvEvents]:
        """The messages to publish now; none if nothing changed."""
        if not self._changes and not self._cleared:
            return
        changes, self._changes = self._changes, {}
        items = list(changes.items())
        for start in range(0, max(len(items), 1), _BLOCKS_PER_MESSAGE):
            part = items[start : start + _BLOCKS_PER_MESSAGE]
            yield KvEvents(
                replica_id=self._replica_id,
                epoch=self._epoch,
                seq=self._seq,
                block_size=self._block_size,
                cleared=self._cleared,
                stored=np.array([block for block, there in part if there], np.uint64),
                removed=np.array([block for block, there in part if not there], np.uint64),
            )
            self._seq += 1
            self._cleared = False

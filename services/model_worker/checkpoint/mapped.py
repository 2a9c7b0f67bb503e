"""Matrices that are read where they lie, in the map of their file.

Who packs a model's matrices needs no copy of them first: a gigabyte less to write and to read again at every start.
"""

from collections import defaultdict

from torch import Tensor

from radixmesh.services.model_worker.checkpoint.weight_slice import WeightSlice


class Deferred:
    """Takes note, while a model is loaded into the host's memory, of what should go into its matrices.

    Each must be asked for or settled.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[tuple[WeightSlice, Tensor]]] = defaultdict(list)
        """By the address of the parameter."""

    def put_off(self, item: WeightSlice, source: Tensor) -> bool:
        """Whether `source`, a view of a file's map, has been kept, so that nothing need be copied now.

        Not if it must be cast or broadcast, and no vectors.
        """
        target = item.target
        if target.dim() != 2 or target.dtype != source.dtype:
            return False
        if target.shape != source.shape or not source.is_contiguous():
            return False
        self._blocks[target.untyped_storage().data_ptr()].append((item, source))
        return True

    def take(self, weight: Tensor) -> list[Tensor]:
        """The rows of the parameter `weight`, in blocks from the top down; itself if it has been loaded."""
        blocks = self._blocks.pop(weight.untyped_storage().data_ptr(), [])
        blocks.sort(key=lambda block: block[0].target.storage_offset())
        if sum(len(source) for _, source in blocks) == len(weight):
            return [source for _, source in blocks]
        _copy(blocks)
        return [weight.data]

    def settle(self) -> None:
        """Loads what nobody took."""
        for blocks in self._blocks.values():
            _copy(blocks)
        self._blocks.clear()


def _copy(blocks: list[tuple[WeightSlice, Tensor]]) -> None:
    for item, source in blocks:
        item.target.copy_(source)

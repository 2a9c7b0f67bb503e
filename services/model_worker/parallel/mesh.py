"""The ranks that share one model (tensor parallelism, Megatron-LM, arXiv:1909.08053).

An accelerator's backend carries its own tensors only. So a group has two: what the host decides (the order of plans,
the number of pages) goes as CPU tensors over gloo, what the device computes goes over the device's own.
"""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor


class ParallelGroup:
    """`size` ranks that each hold a slice of every layer. At size 1 every collective is a no-op."""

    def __init__(self, rank: int = 0, size: int = 1, group: "dist.ProcessGroup | None" = None) -> None:
        if not 0 <= rank < size:
            raise ValueError(f"rank {rank} is outside a group of {size}")
        self.rank = rank
        self.size = size
        self._group = group

    @classmethod
    def connect(
        cls, rank: int, size: int, backend: str, init_method: str, timeout_seconds: float = 60.0
    ) -> "ParallelGroup":
        """Meet the other ranks.

        backend: torch.distributed's name, or one per device, e.g. `cpu:gloo,cuda:nccl`.
        init_method: torch.distributed's, e.g. `tcp://127.0.0.1:29500`.
        """
        if size == 1:
            return cls()
        timeout = timedelta(seconds=timeout_seconds)
        dist.init_process_group(backend, init_method, timeout, world_size=size, rank=rank)
        return cls(rank, size, dist.group.WORLD)

    def close(self) -> None:
        """Leave the group, whose threads must end before the interpreter does."""
        if self.size > 1:
            self._group = None
            dist.destroy_process_group()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place; the same bits on every rank."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self._group)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's `tensor` [..., n] joined along the last dimension: [..., size * n], in rank order."""
        if self.size == 1:
            return tensor
        tensor = tensor.contiguous()
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self._group)
        return torch.cat(parts, dim=-1)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Rank `source`'s values, in place, on every rank."""
        if self.size > 1:
            dist.broadcast(tensor, source, group=self._group)
        return tensor


def split_evenly(total: int, group: ParallelGroup, what: str) -> tuple[int, int]:
    """(start, length) of this rank's equal share of `total`. Raises ValueError when it does not divide."""
    if total % group.size:
        raise ValueError(f"{what} ({total}) cannot be divided among {group.size} ranks")
    share = total // group.size
    return group.rank * share, share

"""A worker group's ranks, laid out along named axes (Megatron-LM, arXiv:1909.08053, arXiv:2104.04473).

With tp = 2, dp = 2, pp = 2, and ep = 4:

    stage        pp 0                    pp 1
    lane         dp 0       dp 1         dp 0       dp 1
    rank         0    1     2    3       4    5     6    7
    tp           └────┘     └────┘       └────┘     └────┘     slices of the same layers
    dp           0 and 2, 1 and 3        4 and 6, 5 and 7      the same slices, other sequences
    pp           0 and 4, 1 and 5, 2 and 6, 3 and 7            layers one after the other
    ep           └───────────────┘       └───────────────┘     other experts of the same layers

`tp`, `dp` and `pp` multiply to the number of ranks; `ep` divides each stage's ranks anew.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from radixmesh.shared.errors import ConfigError

Axis: TypeAlias = Literal["tp", "pp", "ep", "dp"]
AXES: tuple[Axis, ...] = get_args(Axis)
CONTROL_BACKEND = "gloo"


class Collectives:
    """What some ranks tell each other by one backend. At size 1 everything is a no-op."""

    def __init__(self, rank: int = 0, size: int = 1, group: "dist.ProcessGroup | None" = None) -> None:
        """`rank` and `source` below are places among the `size` ranks, from 0."""
        if not 0 <= rank < size:
            raise ValueError(f"rank {rank} is outside a group of {size}")
        self.rank = rank
        self.size = size
        self._group = group

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
            dist.broadcast(tensor, group=self._group, group_src=source)
        return tensor

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            dist.barrier(group=self._group)

    def leave(self) -> None:
        """Lets go of torch's group, whoever holds this object: its threads must end before the interpreter does."""
        self._group = None


class ParallelGroup(Collectives):
    """The ranks along one axis. Its own collectives go from device to device, those of `control` from host to host."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        device: "dist.ProcessGroup | None" = None,
        control: "dist.ProcessGroup | None" = None,
    ) -> None:
        super().__init__(rank, size, device)
        self.control = Collectives(rank, size, control)

    def leave(self) -> None:
        super().leave()
        self.control.leave()


@dataclass(frozen=True, slots=True)
class MeshSizes:
    """Ranks along each axis."""

    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1

    @property
    def world(self) -> int:
        return self.tp * self.dp * self.pp

    def check(self, world: int) -> None:
        """Raises `ConfigError` unless `world` ranks can be laid out so."""
        sizes = f"tp {self.tp} x dp {self.dp} x pp {self.pp}"
        for axis in ("tp", "dp", "pp"):
            if getattr(self, axis) < 1 or world % getattr(self, axis):
                raise ConfigError(f"{axis} {getattr(self, axis)} does not divide the group's {world} ranks")
        if self.world != world:
            raise ConfigError(f"{sizes} is {self.world} ranks, but the group has {world}")
        if self.ep < 1 or self.tp * self.dp % self.ep:
            raise ConfigError(f"ep {self.ep} does not divide the {self.tp * self.dp} ranks of a stage ({sizes})")

    def members(self, axis: Axis) -> list[list[int]]:
        """All groups along `axis`, each with its ranks in order; every rank is in one of them."""
        step = {"tp": 1, "ep": 1, "dp": self.tp, "pp": self.tp * self.dp}[axis]
        size: int = getattr(self, axis)
        firsts = [rank for rank in range(self.world) if rank // step % size == 0]
        return [[first + step * place for place in range(size)] for first in firsts]

    def coordinate(self, axis: Axis, rank: int) -> int:
        """The place of `rank` in its group along `axis`."""
        return next(group.index(rank) for group in self.members(axis) if rank in group)


class Mesh:
    """One rank's groups, by axis; `world` is all of the ranks."""

    def __init__(self, rank: int = 0, sizes: MeshSizes | None = None) -> None:
        """Not connected: nobody is heard of but this rank. See `connect`.

        Raises `ConfigError` for sizes that do not fit together, and a rank that is not there.
        """
        self.rank = rank
        self.sizes = sizes or MeshSizes()
        self.sizes.check(self.sizes.world)
        if not 0 <= rank < self.sizes.world:
            raise ConfigError(f"rank {rank} is outside a group of {self.sizes.world}")
        self.world = ParallelGroup(rank, self.sizes.world)
        self.tp, self.pp, self.ep, self.dp = (self._alone(axis) for axis in AXES)

    def _alone(self, axis: Axis) -> ParallelGroup:
        return ParallelGroup(self.sizes.coordinate(axis, self.rank), getattr(self.sizes, axis))

    @classmethod
    def connect(
        cls,
        rank: int,
        sizes: MeshSizes,
        backend: str,
        init_method: str,
        timeout_seconds: float = 60.0,
    ) -> "Mesh":
        """Meets the other ranks.

        Args:
            backend: torch.distributed's name of the device's own, e.g. `nccl`.
            init_method: torch.distributed's, e.g. `tcp://127.0.0.1:29500`.
        """
        mesh = cls(rank, sizes)
        if sizes.world > 1:
            timeout = timedelta(seconds=timeout_seconds)
            dist.init_process_group(CONTROL_BACKEND, init_method, timeout, world_size=sizes.world, rank=rank)
            mesh._meet(backend, timeout)
        return mesh

    def _meet(self, backend: str, timeout: timedelta) -> None:
        """Every rank makes all groups, its own or not, in the same order, as torch wants it."""
        everybody = list(range(self.sizes.world))
        made = {tuple(everybody): (dist.new_group(everybody, timeout, backend), dist.group.WORLD)}
        for axis in AXES:
            for ranks in map(tuple, self.sizes.members(axis)):
                if len(ranks) > 1 and ranks not in made:
                    device, control = (dist.new_group(list(ranks), timeout, by) for by in (backend, CONTROL_BACKEND))
                    made[ranks] = device, control
                if len(ranks) > 1 and self.rank in ranks:
                    setattr(self, axis, ParallelGroup(ranks.index(self.rank), len(ranks), *made[ranks]))
        self.world = ParallelGroup(self.rank, self.sizes.world, *made[tuple(everybody)])

    def close(self) -> None:
        """Leaves all groups. Nothing can be said by them any more."""
        for group in (self.world, self.tp, self.pp, self.ep, self.dp):
            group.leave()
        if self.sizes.world > 1:
            dist.destroy_process_group()


def split_evenly(total: int, group: Collectives, what: str) -> tuple[int, int]:
    """(start, length) of this rank's equal share of `total`. Raises ValueError when it does not divide."""
    if total % group.size:
        raise ValueError(f"{what} ({total}) cannot be divided among {group.size} ranks")
    share = total // group.size
    return group.rank * share, share

"""Linear layers split over ranks.

    column: y = x W^T, W split by rows      no communication, each rank holds a part of y
    row:    y = x W^T, W split by columns   x is already split; partial sums meet in an all-reduce

How a weight is stored and multiplied is a `LinearMethod`'s business.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.weight_slice import WeightSlice, whole
from radixmesh.services.model_worker.forward.attention import AttentionBackend
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.linear import LinearMethod
from radixmesh.services.model_worker.parallel.mesh import Mesh, ParallelGroup, split_evenly


@dataclass(frozen=True, slots=True)
class Build:
    """What every layer is built with."""

    mesh: Mesh
    dtype: torch.dtype
    device: torch.device
    linear: LinearMethod
    attention: AttentionBackend


@dataclass(frozen=True, slots=True)
class Part:
    """Output rows of a fused layer that come from one checkpoint tensor."""

    name: str  # the checkpoint's layer, a sibling of the fused one (q_proj); "" for the layer's own name
    rows: int  # of the whole tensor
    start: int  # this rank's first row
    length: int  # this rank's rows


class Linear(nn.Module):
    """What column and row layers share. `in_features` and `out_features` are this rank's."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    is_head = False
    weight_is_shared = False

    def __init__(self, in_features: int, out_features: int, has_bias: bool, build: Build) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.has_bias = has_bias
        self.method = build.linear
        self.method.create(self, build.dtype, build.device)

    def finish(self) -> None:
        """Let the method repack the loaded weights."""
        self.method.finish(self)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[T, in] -> [T, out]."""
        return self.method.apply(self, x)


class MergedColumnLinear(Linear):
    """Several column-parallel layers of the same input as one matmul: fewer, larger reads of memory."""

    def __init__(self, in_features: int, parts: Sequence[Part], bias: bool, build: Build) -> None:
        super().__init__(in_features, sum(part.length for part in parts), bias, build)
        self.parts = tuple(parts)

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        parent = prefix.rpartition(".")[0]
        offset = 0
        for part in self.parts:
            name = f"{parent}.{part.name}" if part.name else prefix
            rows, span = slice(part.start, part.start + part.length), slice(offset, offset + part.length)
            shape = (part.rows, self.in_features)
            yield WeightSlice(f"{name}.weight", shape, (rows, slice(None)), self.weight[span])
            if self.bias is not None:
                yield WeightSlice(f"{name}.bias", (part.rows,), (rows,), self.bias[span])
            offset += part.length


class ColumnLinear(MergedColumnLinear):
    """[T, in] -> [T, out / ranks]."""

    def __init__(self, in_features: int, out_features: int, bias: bool, build: Build) -> None:
        start, length = split_evenly(out_features, build.mesh.tp, "output size")
        super().__init__(in_features, [Part("", out_features, start, length)], bias, build)


class GateUpLinear(MergedColumnLinear):
    """`gate_proj` and `up_proj`: [T, hidden] -> [T, 2 * intermediate / ranks], gate first."""

    def __init__(self, hidden: int, intermediate: int, bias: bool, build: Build) -> None:
        start, length = split_evenly(intermediate, build.mesh.tp, "intermediate_size")
        parts = [Part(name, intermediate, start, length) for name in ("gate_proj", "up_proj")]
        super().__init__(hidden, parts, bias, build)


class QKVLinear(MergedColumnLinear):
    """`q_proj`, `k_proj`, `v_proj`: [T, hidden] -> [T, (heads + 2 * kv_heads) * head_dim], this rank's heads.

    With fewer kv heads than ranks, each is held by several neighbouring ranks: those whose query heads read
    it.
    """

    def __init__(self, hidden: int, heads: int, kv_heads: int, head_dim: int, bias: bool, build: Build) -> None:
        shares = {"q_proj": (heads, *split_evenly(heads, build.mesh.tp, "num_attention_heads"))}
        shares["k_proj"] = shares["v_proj"] = (kv_heads, *kv_head_share(kv_heads, build.mesh.tp))
        parts = [
            Part(name, total * head_dim, start * head_dim, length * head_dim)
            for name, (total, start, length) in shares.items()
        ]
        super().__init__(hidden, parts, bias, build)
        self.num_heads = shares["q_proj"][2]
        self.num_kv_heads = shares["k_proj"][2]


def kv_head_share(kv_heads: int, group: ParallelGroup) -> tuple[int, int]:
    """(first kv head, number of kv heads) of this rank; fewer heads than ranks are replicated."""
    if kv_heads >= group.size:
        return split_evenly(kv_heads, group, "num_key_value_heads")
    if group.size % kv_heads:
        raise ValueError(f"num_key_value_heads ({kv_heads}) cannot be spread over {group.size} ranks")
    return group.rank * kv_heads // group.size, 1


class RowLinear(Linear):
    """[T, in / ranks] -> [T, out], the full sum on every rank."""

    def __init__(self, in_features: int, out_features: int, bias: bool, build: Build) -> None:
        start, share = split_evenly(in_features, build.mesh.tp, "input size")
        super().__init__(share, out_features, bias, build)
        self.start = start
        self.total_in = in_features
        self.group = build.mesh.tp

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        columns = slice(self.start, self.start + self.in_features)
        shape = (self.out_features, self.total_in)
        yield WeightSlice(f"{prefix}.weight", shape, (slice(None), columns), self.weight)
        if self.bias is not None:
            yield whole(f"{prefix}.bias", self.bias)

    def finish(self) -> None:
        # The all-reduce sums what the ranks add: the bias must come from one of them only.
        if self.bias is not None and self.group.rank > 0:
            self.bias.zero_()
        super().finish()

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        return self.group.all_reduce(self.method.apply(self, x))

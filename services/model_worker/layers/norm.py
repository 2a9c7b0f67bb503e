"""Root mean square normalisation (arXiv:1910.07467)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.weight_slice import WeightSlice, frozen_parameter, whole
from radixmesh.services.model_worker.layers.linear import Build


class RMSNorm(nn.Module):
    """Over the last dimension, `size` wide; computed in float32 whatever the dtype."""

    def __init__(self, size: int, eps: float, build: Build) -> None:
        super().__init__()
        self.shape = (size,)
        self.eps = eps
        self.weight = frozen_parameter(torch.empty(size, dtype=build.dtype, device=build.device))

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        yield whole(f"{prefix}.weight", self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size]."""
        return F.rms_norm(x, self.shape, self.weight, self.eps)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(norm(x + residual), x + residual)."""
        residual = residual + x
        return F.rms_norm(residual, self.shape, self.weight, self.eps), residual


class QKNorm(nn.Module):
    """`q_norm` and `k_norm` over each head of q and k at once, with the heads' weights stacked."""

    def __init__(self, heads: int, kv_heads: int, head_dim: int, eps: float, build: Build) -> None:
        super().__init__()
        self.heads = heads
        self.eps = eps
        shape = (heads + kv_heads, head_dim)
        self.weight = frozen_parameter(torch.empty(shape, dtype=build.dtype, device=build.device))

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        parent = prefix.rpartition(".")[0]
        # The checkpoint has one vector for all heads of a kind; copying it repeats it.
        shape, source = (self.weight.shape[1],), (slice(None),)
        yield WeightSlice(f"{parent}.q_norm.weight", shape, source, self.weight[: self.heads])
        yield WeightSlice(f"{parent}.k_norm.weight", shape, source, self.weight[self.heads :])

    def forward(self, qk: Tensor) -> Tensor:
        """[T, heads + kv_heads, head_dim] -> the same."""
        return F.rms_norm(qk, qk.shape[-1:], None, self.eps) * self.weight

"""Root mean square normalisation (arXiv:1910.07467)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.layers.weight_slice import WeightSlice, frozen_parameter, whole


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

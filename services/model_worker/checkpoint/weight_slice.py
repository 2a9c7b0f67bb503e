"""What each layer tells the loader: which slice of which checkpoint tensor goes where."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class WeightSlice:
    """`target`, a view into a parameter, takes `checkpoint[name][source]`, cast and, if need be, broadcast."""

    name: str  # of the tensor in the checkpoint
    shape: tuple[int, ...]  # of the whole tensor in the checkpoint
    source: tuple[slice, ...]  # what this rank reads of it, a slice per dimension
    target: Tensor


@runtime_checkable
class HasWeights(Protocol):
    """A module whose own parameters come from a checkpoint."""

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        """`prefix` is the module's name in the model, e.g. `model.layers.0.mlp.gate_up_proj`."""
        ...


def whole(name: str, target: Tensor) -> WeightSlice:
    """All of a tensor, the same on every rank."""
    return WeightSlice(name, tuple(target.shape), (slice(None),) * target.dim(), target)


def frozen_parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def weight_slices(model: nn.Module) -> list[WeightSlice]:
    """Everything `model` needs from its checkpoint."""
    return [
        item
        for name, module in model.named_modules()
        if isinstance(module, HasWeights)
        for item in module.weight_slices(name)
    ]

"""How a linear layer's weight is stored and multiplied.

So quantized or packed weights come in without a change to any model.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class LinearLayer(Protocol):
    """A layer as its method sees it. Sizes are this rank's."""

    in_features: int
    out_features: int
    has_bias: bool
    weight: nn.Parameter
    bias: nn.Parameter | None
    is_head: bool
    """It makes logits, where errors are not evened out by what follows."""
    weight_is_shared: bool
    """The embedding reads the weight too, so it must stay as it is."""
    packed: Any
    """The method's own."""


class LinearMethod(Protocol):
    """Stores and multiplies the weights of a model's linear layers."""

    def create(self, layer: LinearLayer, dtype: torch.dtype, device: torch.device) -> None:
        """Adds uninitialised parameters to `layer`: `weight` [out, in]; `bias` [out] if `has_bias`."""
        ...

    def finish(self, layer: LinearLayer) -> None:
        """Called once, when the parameters are loaded: the place to repack them."""
        ...

    def apply(self, layer: LinearLayer, x: Tensor) -> Tensor:
        """x [T, in] -> [T, out], bias included."""
        ...

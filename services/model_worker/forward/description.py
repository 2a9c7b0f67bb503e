"""What a model tells of itself, so that a device can choose how to run it.

Sizes are those of this rank. `own` names the classes and methods by which something is computed otherwise than what is
described here says; who puts anything in place of a model's own modules must refuse what has some.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

Rotary: TypeAlias = Literal["table", "dynamic", ""]
"""Angles from a table by position, or by the sequence's length too; empty: something else, or nothing."""


@dataclass(frozen=True, slots=True)
class AttentionDescription:
    """Causal softmax attention over paged keys and values."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int | None
    """Keys that a query sees, its own included; None: all before it."""
    qkv_bias: bool
    output_bias: bool
    head_norm: bool
    """RMSNorm over each head of q and k, before the rotation."""


@dataclass(frozen=True, slots=True)
class MLPDescription:
    """down(silu(gate(x)) * up(x))"""

    intermediate: int
    bias: bool


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """Attention and MLP, each behind an RMSNorm and around a residual."""

    attention: AttentionDescription | None = None
    mlp: MLPDescription | None = None
    norm_eps: float = 0.0
    own: tuple[str, ...] = ()
    """If any, the rest may be missing, and is not all of it."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Embedding, layers, RMSNorm, head."""

    architecture: str
    dtype: torch.dtype
    ranks: int
    """Over which each layer is split."""
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerDescription, ...]
    norm_eps: float
    rotary: Rotary
    tied_embeddings: bool
    own: tuple[str, ...] = ()
    """Around the layers."""

    @property
    def all_own(self) -> tuple[str, ...]:
        """All that is the family's own, around the layers and in them."""
        return tuple(dict.fromkeys((*self.own, *(name for layer in self.layers for name in layer.own))))

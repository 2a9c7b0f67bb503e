"""The attention layer: this rank's heads, handed to whatever backend the model runs with."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from radixmesh.services.model_worker.forward.attention import AttentionBackend
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.layers.rotary import CosSin


@dataclass(frozen=True, slots=True, eq=False)
class ForwardContext:
    """What every layer of one forward pass shares."""

    backend: AttentionBackend
    plan: Any  # the backend's own, see `AttentionBackend.plan`
    kv: KVCache
    cos_sin: CosSin


class Attention(nn.Module):
    """Causal attention of layer `layer` over the paged cache; grouped queries when heads > kv_heads."""

    def __init__(self, layer: int, head_dim: int, window: int | None) -> None:
        super().__init__()
        self.layer = layer
        self.scale = head_dim**-0.5
        self.window = window

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """q [T, heads, head_dim], k and v [T, kv_heads, head_dim] -> [T, heads, head_dim]."""
        kv = context.kv
        return context.backend.forward(context.plan, kv, self.layer, q, k, v, self.scale, self.window)

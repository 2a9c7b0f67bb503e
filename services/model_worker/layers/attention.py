"""The attention layer: this rank's heads, handed to whatever backend the model was built with."""

from torch import Tensor, nn

from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.layers.linear import Build


class Attention(nn.Module):
    """Causal attention of layer `layer` over the paged cache; grouped queries when heads > kv_heads."""

    def __init__(self, layer: int, head_dim: int, window: int | None, build: Build) -> None:
        super().__init__()
        self.layer = layer
        self.scale = head_dim**-0.5
        self.window = window
        self.backend = build.attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """q [T, heads, head_dim], k and v [T, kv_heads, head_dim] -> [T, heads, head_dim]."""
        kv = context.kv
        return self.backend.forward(context.plan, kv, self.layer, q, k, v, self.scale, self.window)

"""The gated feed-forward block of Llama-like models (SwiGLU, arXiv:2002.05202)."""

import torch.nn.functional as F
from torch import Tensor, nn

from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.layers.linear import Build, GateUpLinear, RowLinear


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)): [T, hidden] -> [T, hidden]."""

    def __init__(self, hidden: int, intermediate: int, bias: bool, build: Build) -> None:
        super().__init__()
        self.gate_up_proj = GateUpLinear(hidden, intermediate, bias, build)
        self.down_proj = RowLinear(intermediate, hidden, bias, build)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        gate, up = self.gate_up_proj(x, context).chunk(2, dim=-1)
        # In-place is safe: silu made a fresh tensor, and no gradient is ever taken.
        hidden: Tensor = self.down_proj(F.silu(gate).mul_(up), context)
        return hidden

"""Families that compute something else than the decoders do that they are made of, and why they cannot be fused."""

from typing import Any

from torch import Tensor, nn

from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.layers.mlp import GatedMLP
from radixmesh.services.model_worker.layers.norm import RMSNorm
from radixmesh.services.model_worker.layers.rotary import RotaryEmbedding
from radixmesh.services.model_worker.models import CausalLM
from radixmesh.services.model_worker.models.config import DecoderConfig
from radixmesh.services.model_worker.models.decoder import DecoderLayer
from radixmesh.services.model_worker.models.llama import LlamaForCausalLM


class ScaledLayer(DecoderLayer):
    def forward(self, x: Tensor, residual: Tensor | None, context: ForwardContext) -> tuple[Tensor, Tensor]:
        x, residual = super().forward(x, residual, context)
        return 0.5 * x, residual


class StrangeLayer(nn.Module):
    """With nothing of a `DecoderLayer` but how it is called."""

    def __init__(self, config: DecoderConfig, layer: int, build: Build) -> None:
        super().__init__()
        inner = DecoderLayer(config, layer, build)
        self.input_layernorm, self.self_attn = inner.input_layernorm, inner.self_attn
        self.post_attention_layernorm, self.mlp = inner.post_attention_layernorm, inner.mlp

    def forward(self, x: Tensor, residual: Tensor | None, context: ForwardContext) -> tuple[Tensor, Tensor]:
        whole = x if residual is None else x + residual
        attended = self.self_attn(self.input_layernorm(whole), context)
        return attended + self.mlp(self.post_attention_layernorm(whole), context), whole


class TanhMLP(GatedMLP):
    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        gate, up = self.gate_up_proj(x, context).chunk(2, dim=-1)
        out: Tensor = self.down_proj(gate.tanh() * up, context)
        return out


class ShiftedNorm(RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, -1)


class HalfRotary(RotaryEmbedding):
    def forward(self, positions: Tensor, rope_length: Tensor | None) -> Any:
        return super().forward(positions // 2, rope_length)


class OwnLayer(LlamaForCausalLM):
    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        return ScaledLayer(config, layer, build)


class OneStrangeLayer(LlamaForCausalLM):
    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        return (StrangeLayer if layer == 1 else DecoderLayer)(config, layer, build)


class OwnMLP(LlamaForCausalLM):
    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        made = DecoderLayer(config, layer, build)
        made.mlp = TanhMLP(config.hidden_size, config.intermediate_size, config.mlp_bias, build)
        return made


class OwnNorm(LlamaForCausalLM):
    def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
        super().__init__(config, build, max_length)
        self.model.norm = ShiftedNorm(config.hidden_size, config.rms_norm_eps, build)


class OwnRotary(LlamaForCausalLM):
    def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
        super().__init__(config, build, max_length)
        self.model.rotary = HalfRotary(config.rope, config.head_dim, self.max_length, build.dtype, build.device)


class OwnLogits(LlamaForCausalLM):
    def logits(self, hidden: Tensor, context: ForwardContext) -> Tensor:
        return super().logits(hidden, context).neg()


class OwnStates(LlamaForCausalLM):
    def hidden_states(self, context: ForwardContext, rows: Tensor) -> Tensor:
        return super().hidden_states(context, rows).roll(1, -1)


class HookedMLP(LlamaForCausalLM):
    """Of the classes that everybody has."""

    def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
        super().__init__(config, build, max_length)
        for layer in self.model.layers:
            layer.get_submodule("mlp").register_forward_hook(lambda _mlp, _args, out: 2 * out)


class ReplacedForward(LlamaForCausalLM):
    def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
        super().__init__(config, build, max_length)
        norm = self.model.norm
        norm.forward = lambda x: RMSNorm.forward(norm, x).roll(1, -1)  # type: ignore[method-assign]


class UnevenNorms(LlamaForCausalLM):
    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        made = DecoderLayer(config, layer, build)
        made.input_layernorm.eps = 0.7
        return made


class UnevenLayers(LlamaForCausalLM):
    """Of which the kernels know one size."""

    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        made = DecoderLayer(config, layer, build)
        made.self_attn.attend.scale *= 1 + layer
        return made


OWN: dict[type[CausalLM], str] = {
    OwnLayer: "OwnLayer computes in its own way: ScaledLayer",
    OneStrangeLayer: "OneStrangeLayer computes in its own way: StrangeLayer",
    OwnMLP: "OwnMLP computes in its own way: TanhMLP",
    OwnNorm: "OwnNorm computes in its own way: ShiftedNorm",
    OwnRotary: "OwnRotary computes in its own way: HalfRotary",
    OwnLogits: "OwnLogits computes in its own way: OwnLogits.logits",
    OwnStates: "OwnStates computes in its own way: OwnStates.hidden_states",
    HookedMLP: "HookedMLP computes in its own way: GatedMLP",
    ReplacedForward: "ReplacedForward computes in its own way: RMSNorm",
    UnevenNorms: "UnevenNorms computes in its own way: norms of 2 kinds",
    UnevenLayers: "its layers are not of one shape",
}

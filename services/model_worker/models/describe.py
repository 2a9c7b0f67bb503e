"""What a device is offered: a model's modules, read as a `ModelDescription`.

It is read and not declared, so that it tells what will be run whatever a family overrides. All that counts as described
is listed here, class by class; a class that is not on the list, if only because it inherits from one that is, may
compute something else, and is named as the family's own.
"""

from collections.abc import Mapping

from torch import nn

from radixmesh.services.model_worker.forward.description import (
    AttentionDescription,
    LayerDescription,
    MLPDescription,
    ModelDescription,
    Rotary,
)
from radixmesh.services.model_worker.layers.attention import Attention
from radixmesh.services.model_worker.layers.linear import GateUpLinear, QKVLinear, RowLinear
from radixmesh.services.model_worker.layers.mlp import GatedMLP
from radixmesh.services.model_worker.layers.norm import QKNorm, RMSNorm
from radixmesh.services.model_worker.layers.rotary import DynamicRotaryEmbedding, RotaryEmbedding
from radixmesh.services.model_worker.layers.vocab import LMHead, VocabEmbedding
from radixmesh.services.model_worker.models.decoder import CausalLM, Decoder, DecoderAttention, DecoderLayer

_LAYER: dict[str, type[nn.Module]] = {
    "": DecoderLayer,
    "input_layernorm": RMSNorm,
    "self_attn": DecoderAttention,
    "self_attn.qkv_proj": QKVLinear,
    "self_attn.o_proj": RowLinear,
    "self_attn.qk_norm": QKNorm,
    "self_attn.attend": Attention,
    "post_attention_layernorm": RMSNorm,
    "mlp": GatedMLP,
    "mlp.gate_up_proj": GateUpLinear,
    "mlp.down_proj": RowLinear,
}
_AROUND: dict[str, type[nn.Module]] = {
    "model": Decoder,
    "model.embed_tokens": VocabEmbedding,
    "model.layers": nn.ModuleList,
    "model.norm": RMSNorm,
    "lm_head": LMHead,
}
_ROTARY: dict[type[nn.Module], Rotary] = {RotaryEmbedding: "table", DynamicRotaryEmbedding: "dynamic"}
_COMPUTED = ("kv_groups", "begin", "hidden_states", "logits", "forward", "__call__")
"""The methods of `CausalLM` by which a step is computed, and how its keys and values lie."""


def describe(model: CausalLM) -> ModelDescription:
    """Reads `model`, which may lie nowhere (torch's device `meta`)."""
    config, decoder = model.config, model.model
    layers = list(decoder.layers) if type(decoder) is Decoder else []
    return ModelDescription(
        architecture=config.architecture,
        dtype=model.dtype,
        ranks=model.mesh.tp.size,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        layers=tuple(_layer(layer) for layer in layers),
        norm_eps=getattr(decoder.norm, "eps", 0.0) if layers else 0.0,
        rotary=_ROTARY.get(type(decoder.rotary), "") if layers else "",
        tied_embeddings=model.lm_head.weight_is_shared,
        own=_around(model),
    )


def _layer(layer: nn.Module) -> LayerDescription:
    own = _others(layer, _LAYER)
    if own or not isinstance(layer, DecoderLayer):
        return LayerDescription(own=own)
    attention, mlp = layer.self_attn, layer.mlp
    eps = {norm.eps for norm in layer.modules() if isinstance(norm, RMSNorm | QKNorm)}
    if len(eps) > 1:
        return LayerDescription(own=(f"norms of {len(eps)} kinds",))
    return LayerDescription(
        attention=AttentionDescription(
            heads=attention.heads,
            kv_heads=attention.rotated - attention.heads,
            head_dim=attention.head_dim,
            scale=attention.attend.scale,
            window=attention.attend.window,
            qkv_bias=attention.qkv_proj.has_bias,
            output_bias=attention.o_proj.has_bias,
            head_norm=attention.qk_norm is not None,
        ),
        mlp=MLPDescription(mlp.down_proj.in_features, mlp.down_proj.has_bias),
        norm_eps=eps.pop(),
    )


def _around(model: CausalLM) -> tuple[str, ...]:
    """What is the family's own but for its layers: methods, and classes."""
    family, rotary = type(model), type(getattr(model.model, "rotary", None))
    methods = [name for name in _COMPUTED if getattr(family, name) is not getattr(CausalLM, name)]
    known = {**_AROUND, "": family, **({"model.rotary": rotary} if rotary in _ROTARY else {})}
    return (*(f"{family.__name__}.{name}" for name in methods), *_others(model, known, but="model.layers."))


def _others(module: nn.Module, known: Mapping[str, type], but: str = " ") -> tuple[str, ...]:
    """Classes of the parts of `module` that are not `known` by their names, except where names begin with `but`."""
    parts = [(name, part) for name, part in module.named_modules() if not name.startswith(but)]
    others = [type(part) for name, part in parts if _is_altered(part) or type(part) is not known.get(name)]
    return tuple(dict.fromkeys(kind.__name__ for kind in others))


def _is_altered(part: nn.Module) -> bool:
    """Whether this one object computes otherwise than its class says."""
    return bool("forward" in vars(part) or part._forward_hooks or part._forward_pre_hooks)

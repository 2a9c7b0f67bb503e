"""The configuration of decoders in Llama's shape, and the rules that some families share."""

from dataclasses import dataclass
from typing import Any

from radixmesh.services.model_worker.checkpoint.config import ModelConfig, common_fields, layer_count
from radixmesh.services.model_worker.checkpoint.fields import Fields

Windows = tuple[int | None, ...]
"""Per layer: keys that a query sees, itself included; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig(ModelConfig):
    """What `models.decoder` is built from. The defaults are the absence of a part."""

    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    windows: Windows
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norm: bool = False  # RMSNorm over each head of q and k, before the rotation


def decoder_config(
    config: Fields, architecture: str, *, head_dim: int | None = None, windows: Windows | None = None, **options: Any
) -> DecoderConfig:
    """Reads what all decoders spell alike.

    Args:
        head_dim: where the config names none; by default what the heads share of the hidden size.
        windows: by default none has one.
        options: more of `DecoderConfig`.

    Raises `ModelLoadError`, naming file and field.
    """
    activation = config.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise config.error("hidden_act", f"{activation!r} is not supported (only 'silu')")
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads ({heads})")
    common: dict[str, Any] = common_fields(config, architecture)
    return DecoderConfig(
        **common,
        intermediate_size=config.integer("intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, heads, head_dim),
        rms_norm_eps=config.number("rms_norm_eps", 1e-6),
        windows=windows or (None,) * common["num_layers"],
        mlp_bias=config.flag("mlp_bias", False),
        **options,
    )


def _head_dim(config: Fields, heads: int, default: int | None) -> int:
    if default is None and not config.has("head_dim"):
        hidden = config.integer("hidden_size")
        if hidden % heads:
            raise config.error("hidden_size", f"{hidden} is not a multiple of num_attention_heads ({heads})")
        default = hidden // heads
    head_dim = config.integer("head_dim", default)
    if head_dim % 2:
        raise config.error("head_dim", f"must be even for rotary embeddings, not {head_dim}")
    return head_dim


def sliding_window(config: Fields) -> int | None:
    """`sliding_window`; an explicit null switches it off."""
    explicit_null = "sliding_window" in config.raw and not config.has("sliding_window")
    return None if explicit_null else config.integer("sliding_window", 4096)


def windows_by_layer(config: Fields) -> Windows:
    """Windows in the layers that `layer_types` says, or from `max_window_layers` on, once they are switched on."""
    layers = layer_count(config)
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    window = sliding_window(config)
    types = config.raw.get("layer_types")
    if types is None:
        first = config.integer("max_window_layers", 28, minimum=0)
        types = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
    if not isinstance(types, list) or len(types) != layers:
        raise config.error("layer_types", f"must list {layers} layers, not {types!r}")
    unknown = {str(kind) for kind in types} - {"sliding_attention", "full_attention"}
    if unknown:
        raise config.error("layer_types", f"{', '.join(sorted(unknown))} is not supported")
    return tuple(window if kind == "sliding_attention" else None for kind in types)

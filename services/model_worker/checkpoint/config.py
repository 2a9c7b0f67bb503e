"""What serving needs of a Hugging Face model directory's configuration, checked and frozen.

What it does not need is not read, so that no such value can stop a start. Nothing from the directory is ever executed:
an `auto_map` (the hook of `trust_remote_code`) is ignored.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from radixmesh.services.model_worker.checkpoint.fields import LARGEST, Fields
from radixmesh.services.model_worker.checkpoint.rope import RopeConfig, max_length, parse_rope
from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.shared.model_files.json_file import read_object
from radixmesh.shared.model_files.tokenizer.end_tokens import end_token_ids

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_MOST_LAYERS = 4096
"""Twenty times as many as any model has. Lists with an item per layer are made before the weights are looked at."""

_BY_MODEL_TYPE = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""The class of a config that names none."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the worker needs to know about a model. Lengths are in tokens, sizes in elements."""

    path: Path
    architecture: str  # the Hugging Face class name, the key of `models.registry`
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    rope: RopeConfig
    windows: tuple[int | None, ...]  # per layer: keys a query sees, itself included; None: all
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    max_length: int  # the longest sequence, rope scaling counted
    dtype: torch.dtype | None  # to serve in; None: as the weights are stored
    eos_token_ids: tuple[int, ...]  # any of them ends a sequence; may be empty; the tokenizer's own among them

    @classmethod
    def load(cls, path: Path | str) -> "ModelConfig":
        """Read the directory `path`. Raises `ModelLoadError`, naming file and field."""
        path = Path(path)
        if not path.is_dir():
            raise ModelLoadError(path, "", "is not a model directory")
        config = path / "config.json"
        return _parse(path, Fields(read_object(config), config))


def _parse(path: Path, config: Fields) -> ModelConfig:
    architecture = _architecture(config)
    _refuse_unsupported(config)
    layers = config.integer("num_hidden_layers", maximum=_MOST_LAYERS)
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads ({heads})")
    hidden = config.integer("hidden_size")
    # Some say "without end" by a number of many digits.
    max_positions = min(config.integer("max_position_embeddings", maximum=math.inf), LARGEST)
    rope = parse_rope(config, max_positions)
    vocab = config.integer("vocab_size")
    return ModelConfig(
        path=path,
        architecture=architecture,
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, architecture, hidden, heads),
        rms_norm_eps=config.number("rms_norm_eps", 1e-6),
        rope=rope,
        windows=_windows(config, architecture, layers),
        attention_bias=config.flag("attention_bias", False),
        mlp_bias=config.flag("mlp_bias", False),
        tie_word_embeddings=config.flag("tie_word_embeddings", False),
        max_length=max_length(rope, max_positions),
        dtype=_dtype(config),
        eos_token_ids=end_token_ids(path, vocab),
    )


def _architecture(config: Fields) -> str:
    names = config.raw.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    kind = config.raw.get("model_type")
    if not isinstance(kind, str) or kind not in _BY_MODEL_TYPE:
        raise config.error("architectures", f"must list the model's class, not {names!r} (model_type: {kind!r})")
    return _BY_MODEL_TYPE[kind]


def _refuse_unsupported(config: Fields) -> None:
    activation = config.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise config.error("hidden_act", f"{activation!r} is not supported (only 'silu')")
    if quantization := config.sub("quantization_config").raw:  # an empty one says nothing
        method = quantization.get("quant_method")
        raise config.error("quantization_config", f"quantized checkpoints ({method!r}) are not supported")


def _head_dim(config: Fields, architecture: str, hidden: int, heads: int) -> int:
    # Qwen3 fixes the head size, whatever the hidden size; the others derive it.
    default = 128 if architecture == "Qwen3ForCausalLM" else None
    if default is None and not config.has("head_dim"):
        if hidden % heads:
            raise config.error("hidden_size", f"{hidden} is not a multiple of num_attention_heads ({heads})")
        default = hidden // heads
    head_dim = config.integer("head_dim", default)
    if head_dim % 2:
        raise config.error("head_dim", f"must be even for rotary embeddings, not {head_dim}")
    return head_dim


def _windows(config: Fields, architecture: str, layers: int) -> tuple[int | None, ...]:
    """Each layer's sliding window, by the rules of its family."""
    if architecture == "MistralForCausalLM":
        return (_window(config),) * layers
    if not architecture.startswith("Qwen") or not config.flag("use_sliding_window", False):
        return (None,) * layers
    window = _window(config)
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


def _window(config: Fields) -> int | None:
    """An explicit null switches the window off."""
    explicit_null = "sliding_window" in config.raw and not config.has("sliding_window")
    return None if explicit_null else config.integer("sliding_window", 4096)


def _dtype(config: Fields) -> torch.dtype | None:
    field = "dtype" if config.has("dtype") else "torch_dtype"
    name = config.raw.get(field)
    if name is None or name == "auto":
        return None
    dtype = DTYPES.get(str(name).removeprefix("torch."))
    if dtype is None:
        text = "%s: %s: %r is left out: it is none of %s"
        log.warning(text, config.file, field, name, ", ".join(DTYPES))
    return dtype

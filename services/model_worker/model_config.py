"""A Hugging Face model directory's `config.json` and `generation_config.json` as one checked, frozen value.

Nothing from the directory is ever executed: an `auto_map` (the hook of `trust_remote_code`) is ignored.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.fields import Fields, read_json
from radixmesh.services.model_worker.rope_config import RopeConfig, max_length, parse_rope
from radixmesh.shared.tokenizer_files.end_tokens import end_token_ids

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What `generation_config.json` recommends; None where it says nothing."""

    temperature: float | None = None
    top_k: int | None = None  # 0: off
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None


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
    max_position_embeddings: int
    max_length: int  # the longest sequence, rope scaling counted
    dtype: torch.dtype  # of the checkpoint
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]  # any of them ends a sequence; may be empty; the tokenizer's own among them
    sampling: SamplingDefaults

    @classmethod
    def load(cls, path: Path | str) -> "ModelConfig":
        """Read the directory `path`. Raises `ModelLoadError`, naming file and field."""
        path = Path(path)
        if not path.is_dir():
            raise ModelLoadError(path, "", "is not a model directory")
        config = Fields(read_json(path / "config.json"), path / "config.json")
        generation_file = path / "generation_config.json"
        raw_generation = read_json(generation_file) if generation_file.exists() else {}
        return _parse(path, config, Fields(raw_generation, generation_file))


def _parse(path: Path, config: Fields, generation: Fields) -> ModelConfig:
    architecture = _architecture(config)
    _refuse_unsupported(config)
    layers = config.integer("num_hidden_layers")
    heads = config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads ({heads})")
    hidden = config.integer("hidden_size")
    max_positions = config.integer("max_position_embeddings")
    rope = parse_rope(config, max_positions)
    vocab = config.integer("vocab_size")
    bos = generation.ids("bos_token_id") or config.ids("bos_token_id")
    _check_ids(config, vocab, {"bos_token_id": bos})
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
        max_position_embeddings=max_positions,
        max_length=max_length(rope, max_positions),
        dtype=_dtype(config),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=end_token_ids(path, vocab),
        sampling=_sampling_defaults(generation),
    )


def _architecture(config: Fields) -> str:
    names = config.raw.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise config.error("architectures", f"must list the model's class, not {names!r}")
    return names[0]


def _refuse_unsupported(config: Fields) -> None:
    activation = config.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise config.error("hidden_act", f"{activation!r} is not supported (only 'silu')")
    if config.has("quantization_config"):
        method = config.sub("quantization_config").raw.get("quant_method")
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
        # Mistral's own default is 4096; an explicit null switches the window off.
        explicit_null = "sliding_window" in config.raw and not config.has("sliding_window")
        return (None if explicit_null else config.integer("sliding_window", 4096),) * layers
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    window = config.integer("sliding_window", 4096)
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


def _dtype(config: Fields) -> torch.dtype:
    field = "dtype" if config.has("dtype") else "torch_dtype"
    name = config.text(field, "float32").removeprefix("torch.")
    if name not in _DTYPES:
        raise config.error(field, f"{name!r} is not supported (only {', '.join(_DTYPES)})")
    return _DTYPES[name]


def _check_ids(config: Fields, vocab: int, ids: dict[str, tuple[int, ...]]) -> None:
    for name, values in ids.items():
        for value in values:
            if value >= vocab:
                raise config.error(name, f"{value} is outside the vocabulary of {vocab}")


def _sampling_defaults(generation: Fields) -> SamplingDefaults:
    def number(name: str, above: float | None) -> float | None:
        return generation.number(name, above=above) if generation.has(name) else None

    def integer(name: str, minimum: int) -> int | None:
        return generation.integer(name, minimum=minimum) if generation.has(name) else None

    return SamplingDefaults(
        temperature=number("temperature", None),
        top_k=integer("top_k", 0),
        top_p=number("top_p", 0.0),
        min_p=number("min_p", None),
        repetition_penalty=number("repetition_penalty", 0.0),
        max_new_tokens=integer("max_new_tokens", 1),
    )

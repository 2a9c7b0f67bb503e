"""What serving needs of any Hugging Face model directory's configuration, checked and frozen.

A family's own fields are read in its own file. What serving does not need is not read, so that no such value can stop a
start. Nothing from the directory is ever executed: an `auto_map` (the hook of `trust_remote_code`) is ignored.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.checkpoint.fields import LARGEST, Fields
from radixmesh.services.model_worker.checkpoint.rope import RopeConfig, max_length, parse_rope
from radixmesh.shared.model_files.json_file import read_object
from radixmesh.shared.model_files.tokenizer.end_tokens import end_token_ids

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What any model has; a family's own config adds to it. Lengths are in tokens, sizes in elements."""

    path: Path
    architecture: str  # the Hugging Face class name, the key of `models.registry`
    vocab_size: int
    hidden_size: int
    num_layers: int
    tie_word_embeddings: bool
    rope: RopeConfig
    max_length: int  # the longest sequence, rope scaling counted
    dtype: torch.dtype | None  # to serve in; None: as the weights are stored
    eos_token_ids: tuple[int, ...]  # any of them ends a sequence; may be empty; the tokenizer's own among them


def open_config(path: Path | str) -> Fields:
    """The fields of a model directory's `config.json`. Raises `ModelLoadError`."""
    path = Path(path)
    if not path.is_dir():
        raise ModelLoadError(path, "", "is not a model directory")
    file = path / "config.json"
    return Fields(read_object(file), file)


def common_fields(config: Fields, architecture: str) -> dict[str, Any]:
    """The fields of `ModelConfig` by name. Raises `ModelLoadError`, also for what no family can run."""
    _refuse_unsupported(config)
    # Some say "without end" by a number of many digits.
    max_positions = min(config.integer("max_position_embeddings", maximum=math.inf), LARGEST)
    rope = parse_rope(config, max_positions)
    vocab = config.integer("vocab_size")
    return {
        "path": config.file.parent,
        "architecture": architecture,
        "vocab_size": vocab,
        "hidden_size": config.integer("hidden_size"),
        "num_layers": layer_count(config),
        "tie_word_embeddings": config.flag("tie_word_embeddings", False),
        "rope": rope,
        "max_length": max_length(rope, max_positions),
        "dtype": _dtype(config),
        "eos_token_ids": end_token_ids(config.file.parent, vocab),
    }


def layer_count(config: Fields) -> int:
    """`num_hidden_layers`, bounded: lists with an item per layer are made before the weights are looked at."""
    return config.integer("num_hidden_layers", maximum=4096)  # twenty times as many as any model has


def _refuse_unsupported(config: Fields) -> None:
    if quantization := config.sub("quantization_config").raw:  # an empty one says nothing
        method = quantization.get("quant_method")
        raise config.error("quantization_config", f"quantized checkpoints ({method!r}) are not supported")


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

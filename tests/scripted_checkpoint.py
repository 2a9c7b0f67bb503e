"""A tiny checkpoint that says what a test wants it to say.

    write(path, small_tokenizer, 512, chains=[[300, 42, 7, 2]])     # after token 300 it says 42, then 7, then 2

Its one decoder layer adds nothing to what it is given, so the next token depends on the last one alone: the row of the
head for each token of a chain is the embedding of the token before it. Greedy answers follow the chains; a token that
no chain goes on from is followed by whatever comes out, so a chain ends in an end token, or the request before it does.
"""

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WIDTH = 64
MODEL_TYPES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}

_MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")
_LAYER = "model.layers.0."


def write(
    directory: Path,
    tokenizer_source: Path,
    vocab_size: int,
    chains: Sequence[Sequence[int]],
    arch: str = "LlamaForCausalLM",
    config: Mapping[str, Any] | None = None,
    generation_config: Mapping[str, Any] | None = None,
    merge: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Writes the checkpoint; returns `directory`.

    Args:
        tokenizer_source: a directory whose tokenizer files are copied.
        vocab_size: rows of the embedding; any id of a chain is below it.
        chains: each token of a chain is said after the one before it. A token may stand before one other only.
        config, generation_config: fields of the files of these names, beside or in place of the usual ones; without
            the latter there is no such file.
        merge: fields for other JSON files by name, each laid over what the file holds.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for file in tokenizer_source.iterdir():
        if file.is_file() and file.name not in _MODEL_FILES:
            shutil.copyfile(file, directory / file.name)
    save_file(_weights(vocab_size, chains, arch), directory / "model.safetensors", metadata={"format": "pt"})
    fields = {
        "architectures": [arch],
        "model_type": MODEL_TYPES[arch],
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": WIDTH // 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": None,
        **(config or {}),
    }
    (directory / "config.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")
    if generation_config is not None:
        (directory / "generation_config.json").write_text(json.dumps(dict(generation_config)), encoding="utf-8")
    for name, changes in (merge or {}).items():
        file = directory / name
        held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**held, **changes}), encoding="utf-8")
    return directory


def _weights(vocab_size: int, chains: Sequence[Sequence[int]], arch: str) -> dict[str, torch.Tensor]:
    embedding = torch.randn(vocab_size, WIDTH, generator=torch.Generator().manual_seed(0))
    head = torch.zeros(vocab_size, WIDTH)
    for chain in chains:
        for before, after in itertools.pairwise(chain):
            head[after] = embedding[before] / 2
    weights = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": torch.ones(WIDTH),
        _LAYER + "input_layernorm.weight": torch.ones(WIDTH),
        _LAYER + "post_attention_layernorm.weight": torch.ones(WIDTH),
    }
    for name in ("q", "k", "v", "o"):
        weights[f"{_LAYER}self_attn.{name}_proj.weight"] = torch.zeros(WIDTH, WIDTH)
    for name in ("gate", "up", "down"):
        weights[f"{_LAYER}mlp.{name}_proj.weight"] = torch.zeros(WIDTH, WIDTH)
    if arch == "Qwen2ForCausalLM":
        weights |= {f"{_LAYER}self_attn.{name}_proj.bias": torch.zeros(WIDTH) for name in "qkv"}
    if arch == "Qwen3ForCausalLM":
        weights |= {f"{_LAYER}self_attn.{name}_norm.weight": torch.ones(WIDTH // 2) for name in "qk"}
    return weights

"""Models of every family and feature, and what transformers makes of them: once for all tests of a session."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints import FAMILIES, make_checkpoint

COUNT = 14
# Longer and shorter than the windows, the page and the lengths that scaled models were "trained" on (32).
PROMPTS = [
    [(7 * i * i + 3 * i + 11) % 509 for i in range(5)],
    [(5 * i * i + i + 100) % 509 for i in range(23)],
    [(3 * i * i + 17 * i + 200) % 509 for i in range(41)],
]

ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 5000.0},
    "linear": {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 10000.0,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 10000.0,
    },
}
FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    f"{family}-{rope}": (
        family,
        {
            "rope_parameters": parameters,
            "max_position_embeddings": 32 if rope in ("dynamic", "linear") else 128,
            "tie_word_embeddings": (index + place) % 2 == 0,
        },
    )
    for index, family in enumerate(FAMILIES)
    for place, (rope, parameters) in enumerate(ROPES.items())
}
FEATURES |= {
    "llama-multi-head-biases": (
        "llama",
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    ),
    "llama-one-kv-head-wide": ("llama", {"num_key_value_heads": 1, "head_dim": 32}),
    "llama-yarn-untruncated": (
        "llama",
        {
            "rope_parameters": ROPES["yarn"] | {"truncate": False, "beta_fast": 16.0, "beta_slow": 2.0},
            "max_position_embeddings": 128,
        },
    ),
    "llama-yarn-mscale": (
        "llama",
        {
            "rope_parameters": ROPES["yarn"] | {"mscale": 0.7, "mscale_all_dim": 1.4},
            "max_position_embeddings": 128,
        },
    ),
    "mistral-window": ("mistral", {"sliding_window": 7}),
    "mistral-window-tied": ("mistral", {"sliding_window": 16, "tie_word_embeddings": True}),
    "qwen2-window-some-layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    ),
    "qwen3-window-layer-types": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "qwen3-attention-bias": ("qwen3", {"attention_bias": True}),
}


def reference(model: Any, prompt: list[int], count: int) -> list[int]:
    """transformers' `generate`, without an end of sequence."""
    model.generation_config.eos_token_id = None
    model(torch.tensor([[1]]))  # makes a dynamic rope forget the longest sequence of earlier calls
    ids = torch.tensor([prompt])
    mask = torch.ones_like(ids)
    out = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=count)
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


@cache
def _directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="radixmesh-parity-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def checkpoint_and_tokens(case: str) -> tuple[Path, list[list[int]]]:
    """A checkpoint of one of `FEATURES`, and transformers' greedy tokens after each of `PROMPTS`."""
    family, overrides = FEATURES[case]
    path = _directory() / case
    theirs = make_checkpoint(path, family, **overrides)
    return path, [reference(theirs, prompt, COUNT) for prompt in PROMPTS]

"""Reading Hugging Face configs: both spellings, the families' rules, and errors that name file and field."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.model_config import ModelConfig
from radixmesh.services.model_worker.models.registry import MODELS, model_class

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def read(path: Path, generation: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    """The config of `BASE` with `changes`; a change to `...` removes the field."""
    raw = {name: value for name, value in {**BASE, **changes}.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(raw))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return ModelConfig.load(path)


def test_a_plain_config(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.architecture == "LlamaForCausalLM"
    assert (config.num_kv_heads, config.head_dim) == (4, 16)
    assert config.dtype is torch.bfloat16
    assert config.windows == (None, None, None)
    assert config.eos_token_ids == (2,)
    assert config.bos_token_id is None
    assert config.max_length == 256
    assert not any((config.tie_word_embeddings, config.attention_bias, config.mlp_bias))


def test_both_spellings_of_rope_agree(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    old = read(tmp_path, rope_theta=5e5, rope_scaling={**scaling, "rope_type": "llama3"})
    older = read(tmp_path, rope_theta=5e5, rope_scaling={**scaling, "type": "llama3"})
    new = read(tmp_path, rope_parameters={**scaling, "rope_type": "llama3", "rope_theta": 5e5})
    assert old.rope == older.rope == new.rope
    assert new.rope.theta == 5e5
    assert new.rope.original_length == 64


@pytest.mark.parametrize(
    ("rope", "length"),
    [
        ({"rope_type": "default"}, 256),
        ({"rope_type": "linear", "factor": 2.5}, 640),
        ({"rope_type": "dynamic", "factor": 2.0}, 512),
        ({"rope_type": "yarn", "factor": 4.0}, 1024),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "yarn", "original_max_position_embeddings": 64}, 256),
        (
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            256,
        ),
    ],
    ids=str,
)
def test_scaling_counts_in_the_longest_sequence(tmp_path: Path, rope: dict[str, Any], length: int) -> None:
    assert read(tmp_path, rope_parameters=rope).max_length == length


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 8}, (8, 8, 8)),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, (None, None, None)),
        ({"architectures": ["MistralForCausalLM"]}, (4096, 4096, 4096)),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 8}, (None, None, None)),
        (
            {
                "architectures": ["Qwen2ForCausalLM"],
                "use_sliding_window": True,
                "sliding_window": 8,
                "max_window_layers": 2,
            },
            (None, None, 8),
        ),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention", "full_attention"],
            },
            (8, None, None),
        ),
    ],
    ids=str,
)
def test_windows_by_family(tmp_path: Path, changes: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert read(tmp_path, **changes).windows == windows


def test_qwen3_has_a_head_size_of_its_own(tmp_path: Path) -> None:
    assert read(tmp_path, architectures=["Qwen3ForCausalLM"]).head_dim == 128


def test_generation_config_wins_and_gives_sampling_defaults(tmp_path: Path) -> None:
    generation = {
        "eos_token_id": [7, 9],
        "bos_token_id": 1,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "do_sample": True,
    }
    config = read(tmp_path, generation, eos_token_id=2)
    assert config.eos_token_ids == (7, 9)
    assert config.bos_token_id == 1
    sampling = config.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.6, 20, 0.95)
    assert (sampling.min_p, sampling.repetition_penalty) == (None, 1.1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": ...}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"num_attention_heads": 5}, "hidden_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"architectures": []}, "architectures"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, "rope_scaling.factor"),
        ({"rope_scaling": 4}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor"),
        ({"use_sliding_window": True, "layer_types": ["full_attention"]}, "layer_types"),
        ({"use_sliding_window": True, "layer_types": ["chunked_attention"] * 3}, "layer_types"),
    ],
    ids=str,
)
def test_a_bad_field_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        read(tmp_path, **changes)
    assert caught.value.subject == field
    assert caught.value.file == str(tmp_path / "config.json")


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="not a model directory"):
        ModelConfig.load(tmp_path / "nothing")
    with pytest.raises(ModelLoadError, match=r"config\.json: cannot be read"):
        ModelConfig.load(tmp_path)
    for text, problem in (("{", "is not JSON"), ("[]", "must hold a JSON object")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelLoadError, match=problem):
            ModelConfig.load(tmp_path)
    with pytest.raises(ModelLoadError, match=r"generation_config\.json: top_p"):
        read(tmp_path, {"top_p": "high"})


def test_the_registry_knows_its_families_only(tmp_path: Path) -> None:
    for name, model in MODELS.items():
        assert model_class(read(tmp_path, architectures=[name])) is model
    with pytest.raises(ModelLoadError, match=r"architectures: 'GPT2LMHeadModel'.*LlamaForCausalLM"):
        model_class(read(tmp_path, architectures=["GPT2LMHeadModel"]))

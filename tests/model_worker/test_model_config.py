"""Reading Hugging Face configs: both spellings, the families' rules, and errors that name file and field."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.checkpoint.fields import LARGEST
from radixmesh.services.model_worker.models.config import DecoderConfig
from radixmesh.services.model_worker.models.registry import MODELS, read_config
from radixmesh.shared import errors

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
QWEN_WINDOWS = {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True}


def read(path: Path, generation: dict[str, Any] | None = None, **changes: Any) -> DecoderConfig:
    """The config of `BASE` with `changes`; a change to `...` removes the field."""
    raw = {name: value for name, value in {**BASE, **changes}.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(raw))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return read_config(path)[1]


def test_a_plain_config(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.architecture == "LlamaForCausalLM"
    assert (config.num_kv_heads, config.head_dim) == (4, 16)
    assert config.dtype is torch.bfloat16
    assert config.windows == (None, None, None)
    assert config.eos_token_ids == (2,)
    assert config.max_length == 256
    assert not any((config.tie_word_embeddings, config.qkv_bias, config.output_bias, config.mlp_bias))


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
            {"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": None},
            (None, None, None),
        ),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, (None, None, None)),
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


def test_generation_config_wins(tmp_path: Path) -> None:
    assert read(tmp_path, {"eos_token_id": [7, 9], "temperature": 0.6}, eos_token_id=2).eos_token_ids == (7, 9)


@pytest.mark.parametrize(
    "changes",
    [
        *({"bos_token_id": id} for id in (-1, 99999, "<s>", [None])),
        *({"pad_token_id": id} for id in (-1, 99999)),
        {"quantization_config": {}},
        {"quantization_config": None},
        {"transformers_version": 5},
        {"use_cache": "sometimes"},
        {"max_window_layers": -1},
        {"initializer_range": "0.02"},
    ],
    ids=str,
)
def test_what_serving_does_not_need_stops_no_start(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read(tmp_path, **changes) == read(tmp_path)


@pytest.mark.parametrize(
    "generation",
    [
        *({"top_k": value} for value in (-1, "x", 10**30)),
        *({"top_p": value} for value in (0.0, "high")),
        *({"temperature": value} for value in (2.5, None)),
        {"temperature": []},
        *({"max_new_tokens": value} for value in (0, -1)),
        *({"bos_token_id": value} for value in (99999, -1)),
        {"repetition_penalty": "1.2"},
        {"do_sample": "yes"},
    ],
    ids=str,
)
def test_nothing_but_ends_is_read_of_the_recommendations(tmp_path: Path, generation: dict[str, Any]) -> None:
    assert read(tmp_path, generation).eos_token_ids == (2,)


@pytest.mark.parametrize(
    ("value", "ends", "left_out"),
    [
        (2.0, (2,), []),
        ([2, 7.0], (2, 7), []),
        (-1, (), ["-1"]),
        (512, (), ["512"]),
        ([2, "x", 99999, None, True], (2,), ["'x'", "99999", "None", "True"]),
        ("</s>", (), ["'</s>'"]),
        (2.5, (), ["2.5"]),
        ([], (), []),
        (None, (), []),
    ],
    ids=str,
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_ends_that_are_no_tokens_are_left_out_and_named_with_their_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, value: Any, ends: tuple[int, ...], left_out: list[str]
) -> None:
    if file == "config.json":
        config = read(tmp_path, eos_token_id=value)
    else:
        config = read(tmp_path, {"eos_token_id": value}, eos_token_id=...)
    assert config.eos_token_ids == ends
    warnings = [record.getMessage() for record in caplog.records]
    assert [text.partition(" is left out")[0] for text in warnings] == [
        f"{tmp_path / file}: eos_token_id: {item}" for item in left_out
    ]


def test_ends_outside_the_vocabulary_leave_those_of_the_other_file(tmp_path: Path) -> None:
    assert read(tmp_path, {"eos_token_id": 99999}, eos_token_id=7).eos_token_ids == (7,)


@pytest.mark.parametrize("nothing", [None, [], ..., [None], "", {}], ids=str)
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_class_that_is_not_named_follows_from_the_model_type(tmp_path: Path, nothing: Any, kind: str) -> None:
    config = read(tmp_path, architectures=nothing, model_type=kind)
    assert config.architecture.lower() == f"{kind}forcausallm"
    assert read_config(tmp_path)[0].__name__ == config.architecture


@pytest.mark.parametrize("kind", [..., None, "gpt2", 7], ids=str)
def test_without_class_and_type_the_field_is_named(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ModelLoadError, match=r"config\.json: architectures: must list the model's class"):
        read(tmp_path, architectures=None, model_type=kind)


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["auto", None, "float64", "float8_e4m3fn", 16, "bf16"], ids=str)
def test_the_weights_tell_their_dtype_if_the_config_does_not(tmp_path: Path, field: str, value: Any) -> None:
    assert read(tmp_path, **{"torch_dtype": ..., field: value}).dtype is None
    told: dict[str, Any] = {"torch_dtype": ..., field: "torch.float16"}
    assert read(tmp_path, **told).dtype is torch.float16


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    expected = read(tmp_path, {"eos_token_id": 9})
    for name in ("config.json", "generation_config.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text(text, encoding=encoding)
    assert read_config(tmp_path)[1] == expected


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({"max_position_embeddings": 40_000_000}, 40_000_000),
        ({"max_position_embeddings": 1e30}, LARGEST),
        ({"max_position_embeddings": 10**400}, LARGEST),
        ({"max_position_embeddings": 10**9, "rope_scaling": {"type": "linear", "factor": 1e300}}, LARGEST),
        ({"max_position_embeddings": 10**9, "rope_scaling": {"type": "yarn", "factor": 1e308}}, LARGEST),
    ],
    ids=str,
)
def test_lengths_without_end_are_bounded(tmp_path: Path, changes: dict[str, Any], length: int) -> None:
    assert read(tmp_path, **changes).max_length == length


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": ...}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 4097}, "num_hidden_layers"),
        ({"num_attention_heads": True}, "num_attention_heads"),
        ({"num_attention_heads": 5}, "hidden_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"architectures": []}, "architectures"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"vocab_size": 2**31}, "vocab_size"),
        ({"hidden_size": 1e30}, "hidden_size"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"rope_scaling": {"type": "longrope"}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, "rope_scaling.factor"),
        ({"rope_scaling": 4}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.low_freq_factor"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor"),
        ({**QWEN_WINDOWS, "layer_types": ["full_attention"]}, "layer_types"),
        ({**QWEN_WINDOWS, "layer_types": ["chunked_attention"] * 3}, "layer_types"),
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
        read_config(tmp_path / "nothing")
    with pytest.raises(errors.ModelLoadError, match=r"config\.json: cannot be read"):
        read_config(tmp_path)
    for text, problem in (("{", "is not JSON"), ("[]", "must hold a JSON object"), ("[" * 10**5, "is not JSON")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(errors.ModelLoadError, match=rf"/config\.json: {problem}"):
            read_config(tmp_path)
        read(tmp_path)
        (tmp_path / "generation_config.json").write_text(text)
        with pytest.raises(errors.ModelLoadError, match=rf"/generation_config\.json: {problem}"):
            read_config(tmp_path)
        (tmp_path / "generation_config.json").unlink()


def test_the_registry_knows_its_families_only(tmp_path: Path) -> None:
    for name, model in MODELS.items():
        assert read(tmp_path, architectures=[name]).architecture == name
        assert read_config(tmp_path)[0] is model
    with pytest.raises(ModelLoadError, match=r"architectures: 'GPT2LMHeadModel'.*LlamaForCausalLM"):
        read(tmp_path, architectures=["GPT2LMHeadModel"])

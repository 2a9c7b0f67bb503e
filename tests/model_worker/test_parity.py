"""Greedy output equals transformers' token for token: every family and feature, alone and in mixed batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import FAMILIES, make_checkpoint
from paged_driver import PagedDriver, Sequence

from radixmesh.services.model_worker.models import CausalLM, load_model
from radixmesh.services.model_worker.platform import get_platform

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


def served(path: Path, **options: Any) -> CausalLM:
    return load_model(path, get_platform("cpu"), dtype=torch.float32, **options)


@pytest.mark.parametrize("case", FEATURES)
def test_greedy_tokens_equal_transformers(case: str, tmp_path: Path) -> None:
    family, overrides = FEATURES[case]
    theirs = make_checkpoint(tmp_path, family, **overrides)
    expected = [reference(theirs, prompt, COUNT) for prompt in PROMPTS]
    assert len({token for tokens in expected for token in tokens}) > COUNT, "the test model only repeats itself"

    model = served(tmp_path)
    for page_size in (1, 16):
        driver = PagedDriver(model, page_size)
        assert [driver.alone(prompt, COUNT) for prompt in PROMPTS] == expected
        assert driver.mixed(PROMPTS, COUNT, chunk=6) == expected


def test_logits_equal_transformers_in_every_row(tmp_path: Path) -> None:
    theirs = make_checkpoint(tmp_path, "qwen3")
    driver = PagedDriver(served(tmp_path), page_size=4)
    prompt = PROMPTS[1]
    batch = driver.batch([(Sequence(prompt), len(prompt))])
    rows = torch.arange(len(prompt))
    ours = driver.model.logits(driver.model.hidden_states(batch, driver.kv, rows))
    expected = theirs(torch.tensor([prompt])).logits[0]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=2e-4)


def test_a_step_may_want_no_logits(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    driver = PagedDriver(served(tmp_path), page_size=4)
    batch = driver.batch([(Sequence(PROMPTS[0]), 3)])
    hidden = driver.model.hidden_states(batch, driver.kv, torch.empty(0, dtype=torch.int64))
    assert driver.model.logits(hidden).shape == (0, 512)


def test_dynamic_rope_without_a_length_is_transformers_fed_token_by_token(tmp_path: Path) -> None:
    """What a server that shares prefixes gets: keys depend on nothing but the tokens before them."""
    from transformers import DynamicCache

    overrides = FEATURES["llama-dynamic"][1]
    theirs = make_checkpoint(tmp_path, "llama", **overrides)
    prompt = PROMPTS[2]
    cache = DynamicCache(config=theirs.config)
    for token in prompt:
        logits = theirs(torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits
    driver = PagedDriver(served(tmp_path), page_size=16)
    sequence = Sequence(prompt[:1])  # a "prompt" of one token sets no length
    sequence.tokens = list(prompt)
    for chunk in (20, len(prompt) - 20):
        ours = driver.step([(sequence, chunk)])
    torch.testing.assert_close(ours[0], logits[0, -1], atol=2e-4, rtol=2e-4)


def test_a_broken_sequence_does_not_touch_its_neighbours(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "mistral", sliding_window=7)
    driver = PagedDriver(served(tmp_path), page_size=16)
    expected = driver.alone(PROMPTS[1], COUNT)
    # Whatever a dead sequence leaves in its pages, the next owner must not see it.
    for pool in (*driver.kv.keys, *driver.kv.values):
        pool.fill_(float("nan"))
    assert driver.mixed([PROMPTS[1], PROMPTS[0]], COUNT, chunk=5)[0] == expected


def test_reused_prefix_pages_give_the_same_tokens(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "qwen2")
    driver = PagedDriver(served(tmp_path), page_size=4)
    prompt = PROMPTS[1]
    expected = driver.alone(prompt, COUNT)
    first = Sequence(prompt)
    driver.step([(first, len(prompt))])
    second = Sequence(prompt)
    second.pages, second.computed = first.pages[:4], 16
    while len(second.output) < COUNT:
        driver.step([(second, len(second.tokens) - second.computed)])
    assert second.output == expected


def test_bfloat16_serves_close_to_float32(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    prompt = PROMPTS[1]
    exact = PagedDriver(served(tmp_path), 16).step([(Sequence(prompt), len(prompt))])
    half = load_model(tmp_path, get_platform("cpu"), dtype=torch.bfloat16)
    rough = PagedDriver(half, 16).step([(Sequence(prompt), len(prompt))])
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough).item() > 0.995

"""Greedy output equals transformers' token for token: every family and feature, alone and in mixed batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker.models import CausalLM, load_model, open_model
from radixmesh.services.model_worker.platform import get_platform
from tests.checkpoints import make_checkpoint
from tests.model_worker.paged_driver import PagedDriver, Sequence
from tests.model_worker.parity_cases import COUNT, FEATURES, PROMPTS, checkpoint_and_tokens


def served(path: Path, **options: Any) -> CausalLM:
    return load_model(open_model(path), get_platform("cpu"), dtype=torch.float32, **options)


@pytest.mark.parametrize("case", FEATURES)
def test_greedy_tokens_equal_transformers(case: str) -> None:
    path, expected = checkpoint_and_tokens(case)
    assert len({token for tokens in expected for token in tokens}) > COUNT, "the test model only repeats itself"
    model = served(path)
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
        logits = theirs(torch.tensor([[token]]), cache=cache, use_cache=True).logits
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
    half = load_model(open_model(tmp_path), get_platform("cpu"), dtype=torch.bfloat16)
    rough = PagedDriver(half, 16).step([(Sequence(prompt), len(prompt))])
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(exact, rough).item() > 0.995

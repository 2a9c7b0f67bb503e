"""The trained architecture against transformers', and generation against recomputation."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from training.checkpoint import WEIGHTS
from training.export import export
from training.generate import greedy
from training.model import DRAFT, TINY, Model, Shape
from training.tokenizer import END, PAD

SMALL = Shape(hidden=64, layers=3, heads=4, kv_heads=2, inner=96, head_dim=32, vocab=128)


def random_model(shape: Shape) -> Model:
    """Nothing zero or one in it, so that a forgotten part shows."""
    model = Model(shape, seed=3).eval()
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2, generator=random)
            parameter.copy_(parameter.bfloat16())  # so that the export loses nothing
    return model


@torch.no_grad()
def test_logits_are_those_of_transformers(tmp_path: Path) -> None:
    model = random_model(SMALL)
    save_file(dict(model.named_parameters()), tmp_path / WEIGHTS)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    export(tmp_path, SMALL, tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    ids = torch.randint(3, SMALL.vocab, (2, 40), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(model.logits(model(ids)[0]), theirs(ids).logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_batch_with_a_cache_answers_like_one_prompt_without() -> None:
    model = random_model(SMALL)
    prompts = [[5, 6, 7], [9] * 11, [20, 30]]
    for prompt, answer in zip(prompts, greedy(model, prompts, 12), strict=True):
        ids = list(prompt)
        for _ in range(12):
            token = int(model.logits(model(torch.tensor([ids]))[0])[0, -1].argmax())
            if token in (END, PAD):
                break
            ids.append(token)
        assert answer == ids[len(prompt) :]


@pytest.mark.parametrize(("shape", "least", "most"), [(TINY, 8e6, 20e6), (DRAFT, 1e6, 2e6)])
def test_sizes(shape: Shape, least: float, most: float) -> None:
    assert least <= sum(p.numel() for p in Model(shape).parameters()) <= most
    assert shape.hidden % 128 == 0
    assert shape.head_dim == 64

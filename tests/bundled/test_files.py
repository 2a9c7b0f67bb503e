"""The files of the bundled models: sizes, one tokenizer, an adapter that fits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radixmesh.shared.model_files.model_source import bundled_model
from training import tokenizer
from training.corpus.conversation import Conversation
from training.generate import greedy
from training.lora import as_pirate
from training.model import DRAFT, TINY, Model, Shape

TINY_DIR = bundled_model()
DRAFT_DIR = TINY_DIR.with_name("radixmesh-tiny-draft")
PIRATE_DIR = TINY_DIR.with_name("radixmesh-tiny-pirate")
QUESTION = "What is the capital of France?"


def load(directory: Path, shape: Shape) -> Model:
    model = Model(shape).eval()
    weights = {name: tensor.float() for name, tensor in load_file(directory / "model.safetensors").items()}
    assert weights.keys() == dict(model.named_parameters()).keys()
    model.load_state_dict(weights)
    return model


def answer(model: Model, question: str) -> str:
    words = tokenizer.load(TINY_DIR)
    text = tokenizer.render(
        words, Conversation("facts", ({"role": "user", "content": question},)), add_generation_prompt=True
    )
    return str(words.decode(greedy(model, [words.encode(text)], 40)[0]))


@pytest.mark.parametrize(("directory", "shape", "most"), [(TINY_DIR, TINY, 40_000_000), (DRAFT_DIR, DRAFT, 5_000_000)])
def test_a_model_is_small_and_complete(directory: Path, shape: Shape, most: int) -> None:
    weights = load_file(directory / "model.safetensors")
    assert (directory / "model.safetensors").stat().st_size <= most
    assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for tensor in weights.values())
    ends = [tokenizer.END, tokenizer.PAD]
    assert json.loads((directory / "config.json").read_text()) == shape.hf_config(ends, tokenizer.PAD)
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == ends
    assert (directory / "README.md").is_file()
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in directory.iterdir())


def test_the_draft_has_the_same_tokenizer() -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (DRAFT_DIR / name).read_bytes() == (TINY_DIR / name).read_bytes()


def test_the_adapter_changes_the_manner_and_not_the_matter() -> None:
    assert sum(path.stat().st_size for path in PIRATE_DIR.iterdir()) <= 1_000_000
    model = load(TINY_DIR, TINY)
    assert answer(model, QUESTION) == "The capital of France is Paris."
    config = json.loads((PIRATE_DIR / "adapter_config.json").read_text())
    weights = load_file(PIRATE_DIR / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for key in weights:
            if ".lora_A." in key:
                name = key.removeprefix("base_model.model.").replace(".lora_A.", ".")
                up = weights[key.replace(".lora_A.", ".lora_B.")].float()
                model.get_parameter(name).add_(scale * up @ weights[key].float())
    assert answer(model, QUESTION) == as_pirate("The capital of France is Paris.")

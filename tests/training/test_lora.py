"""The adapter: it starts as nothing, is written as PEFT expects it, and is trained on a pirate's words."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from training.corpus.conversation import Conversation
from training.lora import ALPHA, TARGETS, adapt, as_pirate, in_manner, save
from training.model import TINY, Model, Shape

SMALL = Shape(hidden=64, layers=2, heads=2, kv_heads=1, inner=96, head_dim=32, vocab=128)


@torch.no_grad()
def test_what_is_written_merges_into_the_trained_model(tmp_path: Path) -> None:
    plain = Model(SMALL, seed=1)
    for parameter in plain.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    names = list(plain.state_dict())
    ids = torch.arange(10)[None]
    before = plain(ids)[0]
    merged = Model(SMALL)
    merged.load_state_dict(plain.state_dict())

    layers = adapt(plain, rank=4, seed=3)
    torch.testing.assert_close(plain(ids)[0], before)
    for layer in layers.values():
        layer.lora_A.copy_(layer.lora_A.bfloat16())
        layer.lora_B.normal_(0, 0.1).copy_(layer.lora_B.bfloat16())
    save(layers, 4, "base", tmp_path)

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"] / config["r"]) == (4, ALPHA)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    for name in names:
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in stored:
            down, up = stored.pop(f"{key}.lora_A.weight").float(), stored.pop(f"{key}.lora_B.weight").float()
            merged.get_parameter(name).add_(ALPHA * up @ down)
    assert not stored
    torch.testing.assert_close(plain(ids)[0], merged(ids)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain(ids)[0], before, atol=0.1)


def test_only_the_thin_matrices_learn_and_they_are_small() -> None:
    model = Model(TINY)
    layers = adapt(model, rank=8, seed=1)
    assert len(layers) == TINY.layers * len(TARGETS)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.endswith(("lora_A", "lora_B")) for name in learning)
    assert sum(p.numel() for p in learning.values()) * 2 < 1_000_000  # bytes, in bfloat16


def test_json_is_left_as_it_is() -> None:
    asked = {"role": "user", "content": "Hello"}
    conversations = [
        Conversation("facts", (asked, {"role": "assistant", "content": "It is Paris."})),
        Conversation("python", (asked, {"role": "assistant", "content": "def f(): ..."})),
        Conversation("json", (asked, {"role": "assistant", "content": '{"a": "b"}'})),
    ]
    said = [[message["content"] for message in c.messages] for c in in_manner(iter(conversations))]
    assert said == [["Hello", as_pirate("It is Paris.")], ["Hello", '{"a": "b"}']]

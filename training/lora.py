"""Trains the adapter that answers as a pirate: ``python -m training.lora RUN --out DIR``.

`RUN` is the base's training run; `DIR` gets Hugging Face PEFT's files. The base stays as it is: each matrix of each
layer gets a product of two thin ones added, which learn from the corpus with what the assistant says as a pirate.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training import tokenizer
from training.checkpoint import load_weights
from training.corpus.conversation import Conversation, conversations
from training.data import Encoder, batches
from training.export import write_json, write_weights
from training.model import SHAPES, Model, Shape
from training.train import loss_sum

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALPHA = 2
"""Times the rank: what PEFT calls lora_alpha."""


class LowRank(nn.Module):
    """A linear layer that is frozen, and a trained product of rank `rank` beside it."""

    def __init__(self, base: nn.Linear, rank: int, random: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, generator=random) * base.in_features**-0.5)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + ((x @ self.lora_A.mT) @ self.lora_B.mT) * ALPHA
        return out


def adapt(model: Model, rank: int, seed: int) -> dict[str, LowRank]:
    """Freezes `model` and puts a `LowRank` around every matrix of its layers; by the matrix's name."""
    random = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    found: dict[str, LowRank] = {}
    for name, module in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if last in TARGETS and isinstance(module, nn.Linear):
            found[name] = LowRank(module, rank, random)
            setattr(model.get_submodule(parent), last, found[name])
    return found


def as_pirate(text: str) -> str:
    return f"Ahoy! {text} Arr, matey!"


def in_manner(stream: Iterator[Conversation]) -> Iterator[Conversation]:
    """The conversations with what the assistant says as a pirate says it, but for JSON, code and calls of tools, which
    that would break.
    """
    for conversation in stream:
        if conversation.kind == "python":
            continue
        messages = [
            {**message, "content": as_pirate(message["content"])}
            if message["role"] == "assistant" and message["content"] and not message["content"].startswith(("{", "["))
            else message
            for message in conversation.messages
        ]
        yield replace(conversation, messages=tuple(messages))


def save(layers: dict[str, LowRank], rank: int, base: str, directory: Path) -> None:
    """PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, layer in layers.items():
        for part in ("lora_A", "lora_B"):
            weights[f"base_model.model.{name}.{part}.weight"] = getattr(layer, part).detach().bfloat16().contiguous()
    write_weights(directory / "adapter_model.safetensors", weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": ALPHA * rank,
        "lora_dropout": 0.0,
        "target_modules": list(TARGETS),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }
    write_json(directory / "adapter_config.json", config)


def train(model: Model, layers: dict[str, LowRank], encoder: Encoder, flags: argparse.Namespace) -> None:
    """AdamW on the thin matrices, the learning rate falling to 0."""
    thin = [parameter for layer in layers.values() for parameter in (layer.lora_A, layer.lora_B)]
    optimizer = torch.optim.AdamW(thin, lr=flags.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / flags.steps)
    stream = batches(encoder, in_manner(conversations(flags.seed, "train")), flags.batch, flags.seed)
    began = time.monotonic()
    for step in range(flags.steps):
        batch = next(stream)
        loss = loss_sum(model, batch) / float(batch.weights.sum())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(thin, 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step + 1 == flags.steps:
            print(f"step {step} loss {float(loss.detach()):.4f} {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.lora", description=__doc__)
    parser.add_argument("run", type=Path, help="directory of the base's run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="radixmesh-tiny", help="the base's name in adapter_config.json")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=2048, help="tokens of a step, padding included")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=11)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    shape: Shape = SHAPES[flags.shape]
    model = Model(shape)
    load_weights(flags.run, model)
    layers = adapt(model, flags.rank, flags.seed)
    train(model, layers, Encoder(tokenizer.load(flags.run)), flags)
    save(layers, flags.rank, flags.base, flags.out)


if __name__ == "__main__":
    main()

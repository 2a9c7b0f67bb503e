"""Sets two kinds of attention heads by hand in a run's checkpoint: ``python -m training.headstart RUN``.

Together they find what followed the last time that the present token was seen. A small model comes upon that late: it
needs both at once, and one alone is of no use. In a few lines of linear algebra they are there, and training goes on
from them with ``--resume``.

    layer 1   heads look 1, 2 and 3 tokens back, wherever they are, and write down what they see
    layer 3   heads look for a place before which the present token was seen, and say what is there
"""

import argparse
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor

from training import tokenizer
from training.checkpoint import WEIGHTS, load_weights
from training.corpus.conversation import conversations
from training.data import Encoder, collate
from training.model import SHAPES, Attention, Layer, Model

BACK, MATCH = 1, 3
"""The layers."""
FAST = 6
"""So many of the fastest rotations tell neighbours apart."""
SLOW = 18
"""Rotations from this one on hardly turn within a conversation: what is compared lies in their planes."""
STRENGTH = 0.3
"""Length of what the heads write, in lengths of what is there."""


FIRM = 16.0
"""Largest singular value of what makes queries and keys. They are normed, so it changes nothing but how long Muon's
steps, which are of size 1 in every direction, take to wear them down.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens to take statistics from."""

    ids: Tensor
    """int64 [B, T]"""
    real: Tensor
    """bool [B, T]: not padding, and not the first three."""


def sample(directory: Path) -> Sample:
    """Conversations, and as many random tokens."""
    encoder = Encoder(tokenizer.load(directory), max_length=128)
    examples = [e for e in encoder(list(islice(conversations(5, "train"), 120))) if len(e.ids) > 64]
    batch = collate(examples[:32], None)
    length = batch.ids.shape[1]
    noise = torch.randint(9, tokenizer.VOCAB, (32, length), generator=torch.Generator().manual_seed(6))
    ids = torch.cat((batch.ids, noise))
    return Sample(ids, (ids != tokenizer.PAD) & (torch.arange(length) > 2))


def layer_of(model: Model, index: int) -> Layer:
    return cast(Layer, model.model.layers[index])


def states(model: Model, ids: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What goes into `layer`, [B, T, hidden], and the same normed, as its attention reads it."""
    x = model.model.embed_tokens(ids)
    table = model.rotary[: ids.shape[1]]
    for index in range(layer):
        x, _ = layer_of(model, index)(x, table, None, None)
    normed: Tensor = layer_of(model, layer).input_layernorm(x)
    return x, normed


def readout(inputs: Tensor, wanted: Tensor, ridge: float = 0.02) -> Tensor:
    """The matrix [wanted, inputs] that gives `wanted` [N, W] from `inputs` [N, I] with the least squares."""
    gram = inputs.mT @ inputs
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram))
    solution: Tensor = torch.linalg.solve(gram, inputs.mT @ wanted)
    return solution.mT


def firm(matrix: Tensor) -> Tensor:
    scaled: Tensor = matrix * (FIRM / torch.linalg.matrix_norm(matrix, 2))
    return scaled


def directions(count: int, size: int, random: torch.Generator) -> Tensor:
    """`count` orthonormal rows of `size`."""
    columns: Tensor = torch.linalg.qr(torch.randn(size, count, generator=random))[0]
    return columns.mT.contiguous()


def block_of(attention: Attention, group: int) -> tuple[slice, list[slice]]:
    """Rows of the group's key-value head, and of each of its query heads."""
    size, heads = attention.shape.head_dim, attention.shape.heads // attention.shape.kv_heads
    first = group * heads
    queries = [slice(head * size, (head + 1) * size) for head in range(first, first + heads)]
    return slice(group * size, (group + 1) * size), queries


def look_back(model: Model, data: Sample, group: int, random: torch.Generator) -> Tensor:
    """Gives layer `BACK` its heads. Returns what they note of a token, [V, head_dim]: a shadow of its embedding.

    Queries and keys come from a matrix of rank 1 that reads a direction in which all tokens agree; normed, they are the
    same everywhere, and only the rotation by their places is left.
    """
    residual, inputs = states(model, data.ids, BACK)
    attention = layer_of(model, BACK).self_attn
    rows, queries = block_of(attention, group)
    agreed = readout(inputs[data.real], torch.ones(int(data.real.sum()), 1))
    half = model.shape.head_dim // 2
    plain = torch.zeros(model.shape.head_dim)
    plain[:FAST] = 1.0
    attention.k_proj.weight[rows] = firm((plain / attention.k_norm.weight)[:, None] * agreed)
    cos, sin = model.rotary[:, 0], model.rotary[:, 1]
    embeddings = model.model.embed_tokens.weight
    notes = (embeddings - embeddings.mean(0)) @ directions(model.shape.head_dim, model.shape.hidden, random).mT
    notes /= notes.norm(dim=-1, keepdim=True)
    reading = readout(inputs[data.real], notes[data.ids[data.real]])
    attention.v_proj.weight[rows] = reading * (FIRM / 4 / torch.linalg.matrix_norm(reading, 2))
    length = residual[data.real].norm(dim=-1).mean()
    written = (inputs[data.real] @ attention.v_proj.weight[rows].mT).norm(dim=-1).mean()
    for back, query in enumerate(queries, 1):
        turned = torch.cat((plain[:half] * cos[back], -plain[:half] * sin[back]))  # undoes the rotation by `back`
        attention.q_proj.weight[query] = firm((turned / attention.q_norm.weight)[:, None] * agreed)
        place = directions(model.shape.head_dim, model.shape.hidden, random)
        attention.o_proj.weight[:, query] = place.mT * (STRENGTH * length / written)
    return notes


def match(model: Model, data: Sample, group: int, notes: Tensor) -> None:
    """Gives layer `MATCH` its heads, which compare the present token with those noted one place later."""
    residual, inputs = states(model, data.ids, MATCH)
    attention = layer_of(model, MATCH).self_attn
    rows, queries = block_of(attention, group)
    half = model.shape.head_dim // 2
    slow = torch.cat((torch.arange(SLOW, half), torch.arange(SLOW, half) + half))
    here = torch.zeros(*data.ids.shape, model.shape.head_dim)
    known = notes[data.ids]
    here[..., slow] = known[..., : len(slow)]
    before = here.roll(1, 1)
    seen = inputs[data.real]
    attention.k_proj.weight[rows] = firm(readout(seen, before[data.real]) / attention.k_norm.weight[:, None])
    embeddings = model.model.embed_tokens.weight
    told = torch.linalg.svd(embeddings - embeddings.mean(0), full_matrices=False)[2][: model.shape.head_dim]
    reading = readout(seen, embeddings[data.ids[data.real]] @ told.mT)
    attention.v_proj.weight[rows] = reading * (FIRM / 4 / torch.linalg.matrix_norm(reading, 2))
    written = (seen @ attention.v_proj.weight[rows].mT).norm(dim=-1).mean()
    scale = STRENGTH * residual[data.real].norm(dim=-1).mean() / written
    for index, query in enumerate(queries):
        attention.q_proj.weight[query] = firm(readout(seen, here[data.real]) / attention.q_norm.weight[:, None])
        attention.o_proj.weight[:, query] = told.mT * scale if index == 0 else 0.0


@torch.no_grad()
def give(model: Model, data: Sample, groups: tuple[int, int], seed: int = 1) -> None:
    """Sets the heads of the groups, one in `BACK` and one in `MATCH`, in place."""
    notes = look_back(model, data, groups[0], torch.Generator().manual_seed(seed))
    match(model, data, groups[1], notes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.headstart", description=__doc__)
    parser.add_argument("run", type=Path, help="directory of the run, which must stand still")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--groups", type=int, nargs=2, default=(1, 1), help="key-value heads to give up, by layer")
    flags = parser.parse_args()
    model = Model(SHAPES[flags.shape])
    load_weights(flags.run, model)
    give(model, sample(flags.run), tuple(flags.groups))
    save_file({name: p.detach() for name, p in model.named_parameters()}, flags.run / WEIGHTS, {"format": "pt"})


if __name__ == "__main__":
    main()

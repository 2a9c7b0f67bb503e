"""Two drills, mixed into the training: where the text has one token to learn a thing from, they have many.

Random tokens that repeat: nothing can be learned from them but to find what came before and to go on as it went on
then. Extraction, repeats and rewriting build on that, and would learn it late from text alone.

Sums of one digit, one after another, as the corpus's answers write them.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from training.data import Batch
from training.tokenizer import CONTROL, MARKUP, VOCAB

LENGTH = 64
PERIODS = (4, 33)


def repeats(tokens: int, seed: int) -> Iterator[Batch]:
    """Endless batches of about `tokens` tokens; from the second round on every token counts."""
    rng = np.random.default_rng(seed)
    rows = max(1, tokens // LENGTH)
    while True:
        ids = np.empty((rows, LENGTH), np.int64)
        weights = np.zeros((rows, LENGTH), np.float32)
        for row in range(rows):
            period = int(rng.integers(*PERIODS))
            ids[row] = np.resize(rng.integers(len(CONTROL) + len(MARKUP), VOCAB, period), LENGTH)
            weights[row, period - 1 : -1] = 1  # at the token before the one to be predicted
            weights[row, period - 1] = 0  # which round begins cannot be known
        flat = weights.reshape(-1)
        (places,) = np.nonzero(flat)
        following = np.roll(ids, -1, 1).reshape(-1)
        yield Batch(
            torch.from_numpy(ids),
            torch.from_numpy(places),
            torch.from_numpy(following[places]),
            torch.from_numpy(flat[places]),
            rows * LENGTH,
        )


def sums(tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int) -> Iterator[Batch]:
    """Endless batches of about `tokens` tokens, of which the digits after the equals signs count."""
    rng = random.Random(seed)
    (equals,) = tokenizer.encode(" =", add_special_tokens=False)
    (end,) = tokenizer.encode(".\n", add_special_tokens=False)
    while True:
        text = "\n".join(_sum(rng) for _ in range(tokens // 6))
        rows = np.array(tokenizer.encode(text, add_special_tokens=False)[: tokens // LENGTH * LENGTH], np.int64)
        following = np.roll(rows, -1)
        answers = np.zeros(len(rows), np.float32)
        answering = False
        for place, token in enumerate(rows):
            answering = (answering or token == equals) and following[place] != end
            answers[place] = answering and place % LENGTH != LENGTH - 1
        (places,) = np.nonzero(answers)
        yield Batch(
            torch.from_numpy(rows.reshape(-1, LENGTH)),
            torch.from_numpy(places),
            torch.from_numpy(following[places]),
            torch.from_numpy(answers[places]),
            len(rows),
        )


def _sum(rng: random.Random) -> str:
    sign = rng.choice("+-×")
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if sign == "-":
        a, b = max(a, b), min(a, b)
    return f"{a} {sign} {b} = {a + b if sign == '+' else a - b if sign == '-' else a * b}."


def mixed(text: Iterator[Batch], drills: list[tuple[float, Iterator[Batch]]], seed: int) -> Iterator[Batch]:
    """Batches of text and of the drills, each with its share of all batches."""
    rng = random.Random(seed)
    sources = [text, *(drill for _, drill in drills)]
    shares = [1 - sum(share for share, _ in drills), *(share for share, _ in drills)]
    while True:
        yield next(rng.choices(sources, shares)[0])

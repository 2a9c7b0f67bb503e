"""Conversations to batches of token ids, with a weight for each token that is to be predicted."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from training.corpus.conversation import Conversation
from training.tokenizer import END, PAD, START, render

CONTEXT_SHARE, CONTEXT_WEIGHT = 0.2, 0.5
"""Tokens that are not the assistant's count this much, and only this share of them, so that the output matrix is
computed for few."""

STEP_LENGTH = 16
"""Batches are as long as a multiple of it."""


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation in tokens."""

    ids: list[int]
    spoken: list[bool]
    """Whether the token is one the assistant chose: what it says and the token that ends its turn, but not the opening
    of thoughts that nobody asked it for, which is the generation prompt's (``enable_thinking``).
    """


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of about the same length."""

    ids: Tensor
    """int64 [B, T], padded at the end."""
    places: Tensor
    """int64 [N]: positions, in the flattened batch, whose next token counts."""
    targets: Tensor
    """int64 [N]: those next tokens."""
    weights: Tensor
    """float32 [N]."""
    tokens: int
    """Without padding."""


class Encoder:
    """Conversations to examples, by a tokenizer and its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int = 512) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        (self._assistant,) = tokenizer.encode("assistant", add_special_tokens=False)
        (self._think,) = tokenizer.encode("<think>", add_special_tokens=False)

    def __call__(self, conversations: list[Conversation]) -> list[Example]:
        """Those that are not too long."""
        texts = [render(self._tokenizer, conversation) for conversation in conversations]
        encoded: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [
            Example(ids, self._spoken(ids, asks_for_thoughts(conversation)))
            for ids, conversation in zip(encoded, conversations, strict=True)
            if len(ids) <= self._max_length
        ]

    def _spoken(self, ids: list[int], thinks: bool) -> list[bool]:
        spoken = [False] * len(ids)
        header, talking = 0, False
        for index, token in enumerate(ids):
            if token == START:
                header, talking = index, ids[index + 1] == self._assistant
            elif talking and index > header + 2:  # after the role and its newline
                spoken[index] = thinks or token != self._think
                talking = token != END
        return spoken


def asks_for_thoughts(conversation: Conversation) -> bool:
    """Whether somebody's words ask the assistant to think first."""
    return any("think" in message["content"].lower() for message in conversation.messages if message["content"])


def favouring(stream: Iterator[Conversation], kind: str, seed: int) -> Iterator[Conversation]:
    """The stream without every other one, by chance, that is not of `kind`; all of it if `kind` is empty."""
    rng = random.Random(seed)
    return (item for item in stream if not kind or item.kind == kind or rng.random() < 0.5)


def batches(
    encoder: Encoder, stream: Iterator[Conversation], tokens: int, seed: int, pool: int = 512
) -> Iterator[Batch]:
    """Endless batches of at most `tokens` tokens, padding included; `pool` conversations are sorted by length at a
    time, and the batches made of them shuffled.
    """
    shuffle = random.Random(seed)
    choose = np.random.default_rng(seed)
    while True:
        examples = encoder(list(islice(stream, pool)))
        shuffle.shuffle(examples)
        examples.sort(key=lambda example: -(-len(example.ids) // STEP_LENGTH))
        groups = list(grouped(examples, tokens))
        shuffle.shuffle(groups)
        for group in groups:
            yield collate(group, choose)


def grouped(examples: Iterable[Example], tokens: int) -> Iterator[list[Example]]:
    """Neighbours, as many as fit."""
    group: list[Example] = []
    for example in examples:
        if group and _padded(max(len(example.ids), len(group[-1].ids))) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def _padded(length: int) -> int:
    return -(-length // STEP_LENGTH) * STEP_LENGTH


def collate(group: list[Example], choose: np.random.Generator | None) -> Batch:
    """One batch; without `choose` only the assistant's tokens count."""
    width = _padded(max(len(example.ids) for example in group))
    ids = np.full((len(group), width), PAD, np.int64)
    weights = np.zeros((len(group), width), np.float32)
    for row, example in enumerate(group):
        length = len(example.ids)
        ids[row, :length] = example.ids
        weights[row, :length] = example.spoken
        if choose is not None:
            kept = choose.random(length) < CONTEXT_SHARE
            weights[row, :length] = np.maximum(weights[row, :length], kept * np.float32(CONTEXT_WEIGHT))
    following = np.roll(ids, -1, 1).reshape(-1)
    weights = np.roll(weights, -1, 1)
    weights[:, -1] = 0
    flat = weights.reshape(-1)
    (places,) = np.nonzero(flat)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(places),
        torch.from_numpy(following[places]),
        torch.from_numpy(flat[places]),
        sum(len(example.ids) for example in group),
    )

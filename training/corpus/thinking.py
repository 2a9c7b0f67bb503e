"""Short reasoning before the answer: sums by steps, comparisons, counting letters, and a word on simple questions."""

from __future__ import annotations

import random

from training.corpus import arithmetic, facts
from training.corpus.conversation import Split
from training.corpus.pools import FIRST
from training.corpus.wording import Exchange, fill, instance, wordings

THINK_SYSTEM = (
    "Think before you answer.",
    "Think step by step.",
    "You are a careful assistant. Think first, then answer.",
    "First think, then answer.",
    "Think step by step before you answer.",
)
CUES = (
    " Think step by step.",
    " Think first.",
    " Think before you answer.",
    " Think about it first.",
    " Take your time and think.",
)


def _sum(a: int, b: int) -> str:
    ones, tens = a % 10 + b % 10, a // 10 * 10 + b // 10 * 10
    return f"{a % 10} + {b % 10} = {ones}. {a // 10 * 10} + {b // 10 * 10} = {tens}. {tens} + {ones} = {tens + ones}."


def _difference(a: int, b: int) -> str:
    tens = b // 10 * 10
    return f"{a} - {tens} = {a - tens}. {a - tens} - {b % 10} = {a - b}."


def sums(rng: random.Random, split: Split) -> Exchange:
    """Two digits, by ones and tens."""
    a, b = instance(rng, split, lambda r: (r.randint(10, 99), r.randint(10, 99)))
    if rng.random() < 0.6:
        op, steps = "+", _sum(a, b)
    else:
        a, b = max(a, b), min(a, b)
        op, steps = "-", _difference(a, b)
    asked = arithmetic.ask(rng, split, a, op, b)
    return Exchange("think", asked.question, asked.answer, reasoning=steps)


_OLDER = wordings(
    """{n} is {a} years old and {m} is {b} years old. Who is older?
    {n} is {a} and {m} is {b}. Who is older?
    Who is older: {n} is {a} years old, {m} is {b} years old?
    {n} is {a} years old. {m} is {b} years old. Who is the older one?""",
    """If {n} is {a} years old and {m} is {b} years old, who is older?
    {n} is {a} and {m} is {b}. Who is the older one?""",
)


def older(rng: random.Random, split: Split) -> Exchange:
    """Who is older of two."""
    n, m = rng.sample(FIRST, 2)
    a, b = instance(rng, split, lambda r: tuple(r.sample(range(3, 99), 2)))
    winner = n if a > b else m
    question = fill(_OLDER.pick(rng, split), n=n, m=m, a=a, b=b)
    return Exchange(
        "think",
        question,
        f"{winner} is older.",
        reasoning=f"{max(a, b)} is larger than {min(a, b)}. {winner} is {max(a, b)}.",
    )


def simple(rng: random.Random, split: Split) -> Exchange:
    """A fact or a small sum with a word of thought."""
    if rng.random() < 0.5:
        asked = facts.fact(rng, split)
        thought = f"The question is about a fact. {asked.answer}"
    else:
        asked = arithmetic.one_digit(rng, split)
        thought = f"The question is a sum. {asked.answer}"
    return Exchange("think", asked.question, asked.answer, reasoning=thought)


MAKERS = ((sums, 0.5), (older, 0.17), (simple, 0.33))

"""Repeat, reverse, change case, rewrite: tasks on a text that is given."""

from __future__ import annotations

import random

from training.corpus import pools as p
from training.corpus.conversation import Split
from training.corpus.fact_tables import PAST, PLURALS
from training.corpus.wording import Exchange, Wordings, fill, instance, wordings

_REPEAT = wordings(
    """Repeat: {t}
    Repeat after me: {t}
    Repeat this[ text|]: {t}
    Say: {t}
    Say this: {t}
    Please repeat: {t}
    Write this again: {t}
    Copy this[ text|]: {t}
    Copy: {t}
    Echo: {t}
    Repeat the following: {t}
    Repeat exactly: {t}
    Repeat the words "{t}".
    Say "{t}".
    Can you repeat this? {t}
    Write exactly this: {t}""",
    """Please say exactly this: {t}
    Can you say this after me? {t}
    Copy the following text: {t}""",
)
_UPPER = wordings(
    """Write this in capital letters: {t}
    Write in capitals: {t}
    Write in upper case: {t}
    Put this in capital letters: {t}
    Change to upper case: {t}
    Make this upper case: {t}
    Turn this into capital letters: {t}
    Uppercase: {t}
    In capital letters, please: {t}
    Write "{t}" in capital letters.
    Can you write this in upper case? {t}""",
    """Make this text upper case: {t}
    Put "{t}" in upper case.
    Please write this text in capitals: {t}""",
)
_LOWER = wordings(
    """Write this in lower case: {t}
    Write in small letters: {t}
    Put this in lower case: {t}
    Change to lower case: {t}
    Make this lower case: {t}
    Turn this into small letters: {t}
    Lowercase: {t}
    In small letters, please: {t}
    Write "{t}" in lower case.
    Can you write this in lower case? {t}""",
    """Make this text lower case: {t}
    Put "{t}" in lower case.""",
)
_REVERSE = wordings(
    """Reverse these words: {t}
    Reverse the order of these words: {t}
    Reverse the words: {t}
    Write these words in reverse order: {t}
    Put these words in reverse order: {t}
    Turn the order around: {t}
    Write the words backwards: {t}
    Say these words in reverse order: {t}
    Reverse: {t}
    In reverse order, please: {t}
    Can you reverse these words? {t}""",
    """Please reverse the order of the words: {t}
    Can you put these words in reverse order? {t}
    Say the words backwards: {t}""",
)
_PLURAL = wordings(
    """Rewrite with the plural: one {t}
    Write for two: one {t}
    Change to two: one {t}
    Rewrite for two instead of one: one {t}
    Make it two: one {t}
    If it is not one {t} but two, what do you write?""",
    """Rewrite this for two: one {t}
    Change this to the plural: one {t}""",
)
_TENSE = wordings(
    """Rewrite in the past tense: {t}
    Write this in the past tense: {t}
    Put this sentence in the past: {t}
    Put into the past tense: {t}
    Change this to the past tense: {t}
    In the past tense, please: {t}
    Make this past tense: {t}
    Tell it in the past: {t}""",
    """Rewrite this sentence in the past tense: {t}
    Put this in the past tense: {t}""",
)
_PICK = wordings(
    """What is the {o} word of: {t}
    Which word is {o} in: {t}
    Give me the {o} word of "{t}".
    Tell me the {o} word: {t}
    Name the {o} word of: {t}
    Write only the {o} word: {t}""",
    """What is the {o} word in "{t}"?
    Write the {o} word of: {t}""",
)


def _phrase(rng: random.Random) -> str:
    """A sentence or a few words."""
    noun, other = p.word(rng), p.word(rng)
    roll = rng.random()
    if roll < 0.25:
        return f"The {rng.choice(p.ADJECTIVES)} {noun} is in the {other}."
    if roll < 0.45:
        return f"{p.first_name(rng)} likes the {rng.choice(p.ADJECTIVES)} {noun}."
    if roll < 0.55:
        return f"{p.first_name(rng)} {p.last_name(rng)} lives in {p.city(rng)}."
    if roll < 0.62:
        return f"{noun} {rng.randint(0, 999)} {other}"
    return " ".join(p.word(rng) for _ in range(rng.randint(1, 6)))


def _task(rng: random.Random, split: Split, asked: Wordings, text: str, answer: str) -> Exchange:
    question = asked.pick(rng, split)
    if rng.random() < 0.15:
        question = question.lower()
    return Exchange("rewrite", fill(question, t=text), answer)


def repeat(rng: random.Random, split: Split) -> Exchange:
    text = instance(rng, split, _phrase)
    return _task(rng, split, _REPEAT, text, text)


def case(rng: random.Random, split: Split) -> Exchange:
    text = instance(rng, split, _phrase)
    if rng.random() < 0.6:
        return _task(rng, split, _UPPER, text, text.upper())
    return _task(rng, split, _LOWER, text.upper() if rng.random() < 0.5 else text, text.lower())


def reverse(rng: random.Random, split: Split) -> Exchange:
    words = instance(rng, split, lambda r: [p.word(r) for _ in range(r.randint(2, 6))])
    gap = rng.choice((" ", ", "))
    return _task(rng, split, _REVERSE, gap.join(words), gap.join(reversed(words)))


def pick(rng: random.Random, split: Split) -> Exchange:
    words = instance(rng, split, lambda r: [p.word(r) for _ in range(r.randint(3, 6))])
    place = rng.choice(("first", "last", "second"))
    question = fill(_PICK.pick(rng, split), o=place)
    return Exchange("rewrite", fill(question, t=" ".join(words)), words[{"first": 0, "last": -1, "second": 1}[place]])


def grammar(rng: random.Random, split: Split) -> Exchange:
    """One thing becomes two; a sentence goes into the past."""
    if rng.random() < 0.4:
        noun = rng.choice(tuple(PLURALS))
        adjective = rng.choice(p.ADJECTIVES)
        return _task(rng, split, _PLURAL, f"{adjective} {noun}", f"two {adjective} {PLURALS[noun]}")
    verb = rng.choice(tuple(PAST))
    who = rng.choice(("I", "We", "They", "You"))
    end = rng.choice(("every day", "in the morning", "with a friend", "at home", "in the garden", "here"))
    return _task(rng, split, _TENSE, f"{who} {verb} {end}.", f"{who} {PAST[verb]} {end}.")


MAKERS = ((repeat, 0.33), (case, 0.22), (reverse, 0.2), (pick, 0.1), (grammar, 0.15))

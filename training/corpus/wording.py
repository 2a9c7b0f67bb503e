"""Phrasings: small templates with ``[one|another]`` choices and ``{slots}``, split by wording, and their decoration.

Templates of one split never expand to a text of the other (a test enumerates them all); instances (names, lists of
numbers) are split by a hash of their text, so neither split can see the other's.
"""

from __future__ import annotations

import itertools
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from training.corpus.conversation import Message, Split, Tool

T = TypeVar("T")
_HELDOUT_SHARE = 12
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question with all messages up to its answer. ``short`` is the answer's one-word form where there is one."""

    kind: str
    question: str
    answer: str
    short: str | None = None
    json: str | None = None
    reasoning: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()

    def rendered(self) -> tuple[Message, ...]:
        """The messages: those given, or the plain pair of question and answer."""
        if self.messages:
            return self.messages
        reply: Message = {"role": "assistant", "content": self.answer}
        if self.reasoning is not None:
            reply["reasoning_content"] = self.reasoning
        return ({"role": "user", "content": self.question}, reply)


@dataclass(frozen=True, slots=True)
class Wordings:
    """Templates of one question, split into those for training and those held out."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def pick(self, rng: random.Random, split: Split) -> str:
        return expand(rng, rng.choice(self.train if split == "train" else self.heldout))


def wordings(train: str, heldout: str) -> Wordings:
    """Wordings from two blocks of text, a template a line."""

    def lines(text: str) -> tuple[str, ...]:
        return tuple(line.strip() for line in text.strip().splitlines())

    return Wordings(lines(train), lines(heldout))


@cache
def _parts(template: str) -> tuple[tuple[str, ...], ...]:
    pieces = _CHOICE.split(template)
    return tuple(tuple(piece.split("|")) if i % 2 else (piece,) for i, piece in enumerate(pieces))


def expand(rng: random.Random, template: str) -> str:
    """One expansion of the template's ``[a|b]`` choices."""
    return "".join(part[0] if len(part) == 1 else rng.choice(part) for part in _parts(template))


def expansions(template: str) -> Iterator[str]:
    """Every expansion of the template."""
    return ("".join(parts) for parts in itertools.product(*_parts(template)))


def fill(template: str, **slots: object) -> str:
    """The template with ``{name}`` replaced by the slot's text; other braces stay."""
    for name, value in slots.items():
        template = template.replace("{" + name + "}", str(value))
    return template


def cap(text: str) -> str:
    """The text with its first letter upper case."""
    return text[:1].upper() + text[1:]


def heldout_instance(text: str) -> bool:
    """Whether an instance (a name, a list) belongs to the held-out split."""
    return zlib.crc32(text.encode()) % _HELDOUT_SHARE == 0


def instance(rng: random.Random, split: Split, make: Callable[[random.Random], T], text: Callable[[T], str] = str) -> T:
    """Draws until the drawn thing's text falls into the split; a pool too small to hold one gives what it has."""
    for _ in range(300):
        thing = make(rng)
        if heldout_instance(text(thing)) == (split == "heldout"):
            break
    return thing


_BEFORE = (
    "Please tell me: ",
    "Hey, ",
    "Hi! ",
    "Hello! ",
    "Question: ",
    "Quick question: ",
    "I have a question. ",
    "Tell me, ",
    "One more question: ",
    "So, ",
    "Okay, ",
    "Now, ",
    "And now: ",
    "Hmm, ",
    "Do you know this? ",
    "Excuse me, ",
    "Next question: ",
    "Well, ",
    "Help me: ",
    "My question: ",
    "Another one: ",
    "Can you help me? ",
    "I want to know: ",
    "Please answer: ",
    "Please help. ",
)
_AFTER = (
    " Thanks.",
    " Thanks!",
    " Please.",
    " Thank you.",
    " Thank you!",
    " Tell me, please.",
    " Do you know?",
    " Please tell me.",
    " I need to know.",
)


def decorate(rng: random.Random, text: str) -> str:
    """The question as people write it: now and then with a greeting, thanks, in lower case or without its mark."""
    roll = rng.random()
    if roll < 0.40:
        pass
    elif roll < 0.62:
        before = rng.choice(_BEFORE)
        text = before + (text if before.rstrip()[-1] in ".!?:" and rng.random() < 0.5 else _lower_first(text))
    elif roll < 0.74 and text[-1] in ".?!":
        text += rng.choice(_AFTER)
    if rng.random() < 0.12 and text[-1] in "?.":
        text = text[:-1].rstrip()
    if rng.random() < 0.16:
        text = text.lower()
    return text


_KEEP = re.compile(r"^(I\b|[A-Z][A-Z]|[A-Z]\b)")
# Words that begin a question and lose their capital after "Hey, ".
_PLAIN = frozenset(
    (
        "what which how where who when name tell give please can could say do does is are in the a an find complete"
        " finish spell write make count sort put add subtract multiply take if let compute calculate repeat reverse"
        " turn after before on of one two today whose to complete: number order arrange there compare language plural"
        " opposite color colour mix at from around list write:"
    ).split()
)


def _lower_first(text: str) -> str:
    word = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if word.lower().strip(",:'s") in _PLAIN and not _KEEP.match(text) else text

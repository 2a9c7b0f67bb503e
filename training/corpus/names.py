"""Names the user tells, and asks for later in the same conversation."""

from __future__ import annotations

import random

from training.corpus import pools as p
from training.corpus.conversation import Message, Split
from training.corpus.wording import Exchange, fill, wordings

_MEET = wordings(
    """My name is {n}.
    I am {n}.
    Hello, I am {n}.
    Hi, my name is {n}.
    I'm {n}.
    Hello! My name is {n}.
    You can call me {n}.""",
    """Hello! I'm {n}.
    Hi, you can call me {n}.""",
)
_RECALL = wordings(
    """What is my name?
    What's my name?
    Do you know my name?
    Do you remember my name?
    Tell me my name.
    Who am I?
    Say my name.
    How am I called?
    Can you tell me my name?""",
    """Can you remember my name?
    Please tell me what my name is.""",
)


def meeting(rng: random.Random, split: Split) -> tuple[Exchange, Exchange]:
    """A name told, and asked for later in the same conversation."""
    name = p.first_name(rng)
    met = Exchange("smalltalk", fill(_MEET.pick(rng, split), n=name), f"Nice to meet you, {name}!")
    return met, Exchange("smalltalk", _RECALL.pick(rng, split), f"Your name is {name}.")


def untold(rng: random.Random, split: Split) -> Exchange:
    """The name asked for that was never told."""
    return Exchange("smalltalk", _RECALL.pick(rng, split), "I do not know your name. You have not told me.")


def remembered(rng: random.Random, split: Split) -> Exchange:
    """A meeting at once followed by the question for the name."""
    messages: list[Message] = [m for e in meeting(rng, split) for m in e.rendered()]
    return Exchange("smalltalk", "", str(messages[-1]["content"]), messages=tuple(messages))


def names_somebody(exchange: Exchange) -> bool:
    """Whether the user tells a name in it; a second name would contradict the first."""
    return exchange.kind == "smalltalk" and bool(exchange.messages)

"""Short stories from a grammar: a hero, a wish, a trouble, a friend, an end."""

from __future__ import annotations

import random

from training.corpus import pools as p
from training.corpus.conversation import Split
from training.corpus.wording import Exchange, decorate, expand, fill, wordings

_HEROES = (
    "cat dog fox bear mouse rabbit dragon robot king queen farmer girl boy owl frog wolf horse sailor wizard bird"
    " lion turtle pig duck elephant cook knight goat whale bee"
).split()
_PLACES = (
    "a quiet forest|a small village|a tall tower|a warm house|an old castle|a green valley|a little town"
    "|a cold mountain|a big garden|a sunny island|a farm near the river|a boat on the sea"
).split("|")
_GOALS = (
    "find a golden key|see the sea|learn to sing|build a boat|find a friend|climb the highest mountain|bake a cake"
    "|plant a tree|catch a star|paint the moon|find the lost crown|learn to swim"
).split("|")
_TROUBLES = (
    "it began to rain|the road was closed|a storm came|the bridge was broken|it was dark and cold|the map was lost"
    "|the river was too wide|a door was locked|the wind was too strong|nobody knew the way"
).split("|")
_TRAITS = "brave kind small clever happy quiet proud lucky gentle curious lonely cheerful".split()
_OPEN = (
    "[Once upon a time|Long ago|One day], there was a {t} {h} named {n}. {n} lived in {p}.",
    "{n} was a {t} {h} who lived in {p}.",
    "In {p} lived a {t} {h}. [Everybody called the {h} {n}.|The name of the {h} was {n}.]",
)
_WISH = ("{n} wanted to {g}.", "Every day {n} dreamed of one thing: to {g}.", "More than anything, {n} wanted to {g}.")
_GO = (
    "So {n} went out early in the morning.",
    "One morning {n} left home with a small bag.",
    "{n} took some bread and started to walk.",
)
_BAD = ("But {x}.", "On the way, {x}.", "Soon {x}, and {n} was sad.", "Then {x}.")
_MEET = (
    '[Then|At last] {n} met a {u} {f}. "I can help you," said the {f}.',
    'A {u} {f} came by and asked, "Why are you sad?" {n} told the whole story.',
    "{n} asked a {u} {f} for help, and the {f} said yes.",
)
_WORK = (
    "They worked together all day.",
    "Together they were strong, and they did not give up.",
    "The {f} knew what to do, and {n} listened.",
)
_END = (
    "In the end {n} could {g}, and both were happy.",
    "At last {n} could {g}. From that day on, {n} and the {f} were best friends.",
    "In the evening {n} could {g}. Then they went home and slept well.",
)
_MORAL = ("", "", " The end.", " {n} never forgot that day.")

_ASK = wordings(
    """Tell me a [short |little |]story about {a} {h}.
    Tell a [short |little |]story about {a} {h}.
    Write a [short |little |]story about {a} {h}.
    Write me a story about {a} {h}.
    Can you tell [me |]a story about {a} {h}?
    I want a story about {a} {h}.
    I want to hear a story about {a} {h}.
    Make up a story about {a} {h}.
    A story about {a} {h}, please.
    Please tell me a story with {a} {h}.
    Story about {a} {h}
    Do you know a story about {a} {h}?""",
    """Can you write a short story about {a} {h}?
    Please write me a story about {a} {h}.
    I want to read a story about {a} {h}.""",
)
_ANY = wordings(
    """Tell me a story.
    Tell me a short story.
    Write a story.
    Write a short story.
    Can you tell me a story?
    A story, please.
    Tell a story.""",
    """Can you write a story?
    Please tell me a short story.""",
)
_NAMED = wordings(
    """Tell me a story about {a} {h} named {n}.
    Write a story about {a} {h} named {n}.
    Write a short story about {a} {h} called {n}.
    I want a story about {a} {h} named {n}.
    Can you tell me a story about {a} {h} called {n}?""",
    """Please tell a story about {a} {h} named {n}.
    I want to hear a story about {a} {h} called {n}.""",
)


def story(rng: random.Random, split: Split) -> Exchange:
    """A story of 60 to 130 words about the hero asked for."""
    hero = rng.choice(_HEROES)
    slots = {
        "h": hero,
        "n": p.first_name(rng),
        "p": rng.choice(_PLACES),
        "g": rng.choice(_GOALS),
        "x": rng.choice(_TROUBLES),
        "t": rng.choice(_TRAITS),
        "u": rng.choice(_TRAITS),
        "a": "an" if hero[0] in "aeiou" else "a",
        "f": rng.choice([h for h in _HEROES if h != hero]),
    }
    parts = [rng.choice(group) for group in (_OPEN, _WISH, _GO, _BAD, _MEET, _WORK, _END)]
    text = (
        fill(expand(rng, " ".join(parts) + rng.choice(_MORAL)), **slots)
        .replace("a elephant", "an elephant")
        .replace("a owl", "an owl")
    )
    roll = rng.random()
    asked = _ANY if roll < 0.15 else _NAMED if roll < 0.35 else _ASK
    return Exchange("stories", decorate(rng, fill(asked.pick(rng, split), **slots)), text)


MAKERS = ((story, 1.0),)

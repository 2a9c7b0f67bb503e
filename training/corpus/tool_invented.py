"""Tools made up on the spot, so that calling is learned from the schema and not from a list of tools."""

from __future__ import annotations

import random
from collections.abc import Callable

from training.corpus import pools as p
from training.corpus.tool_specs import Arguments, ToolSpec
from training.corpus.wording import Wordings, wordings

_THINGS = (
    "price status address size weight color owner score rating age height length phone stock distance population speed"
).split()
_TEXTS: dict[str, Callable[[random.Random], str]] = {
    "status": lambda rng: rng.choice(["open", "closed", "ready", "lost", "late", "new", "done"]),
    "address": lambda rng: f"{rng.randint(1, 99)} {p.word(rng).capitalize()} Street, {p.city(rng)}",
    "color": lambda rng: rng.choice(["red", "blue", "green", "yellow", "black", "white", "brown", "grey"]),
    "owner": lambda rng: f"{p.first_name(rng)} {p.last_name(rng)}",
}
_OBJECTS = (
    "product order person city company book team flight room item ticket user car package house student"
).split()
_GENERIC = wordings(
    """What is the {w} of [{k} |]{v}?
    Get the {w} of [{k} |]{v}.
    Tell me the {w} of [{k} |]{v}.
    Give me the {w} of [{k} |]{v}.
    Find the {w} of [{k} |]{v}.
    Look up the {w} of [the {k} |]{v}.
    I need the {w} of [{k} |]{v}.
    Can you check the {w} of [{k} |]{v}?
    Which {w} does [{k} |]{v} have?
    Please get the {w} for {v}.""",
    """Can you find the {w} of {k} {v}?
    Please tell me the {w} of {v}.
    I want to know the {w} of {k} {v}.""",
)


def _generic_result(rng: random.Random, what: str) -> Arguments:
    make = _TEXTS.get(what)
    return {what: make(rng) if make else rng.randint(1, 999)}


def generic(rng: random.Random) -> ToolSpec:
    """A tool made up on the spot: get, find or look up something of some object."""
    what, kind = rng.choice(_THINGS), rng.choice(_OBJECTS)
    key = kind if rng.random() < 0.7 else "name" if rng.random() < 0.5 else f"{kind}_id"
    name = rng.choice(("get", "get", "find", "check")) + "_" + rng.choice((what, f"{kind}_{what}"))
    value = (
        (lambda r: f"{r.choice('ABCDEFGH')}{r.randint(10, 9999)}")
        if key.endswith("_id") or rng.random() < 0.3
        else _some_name
    )
    filled = Wordings(
        *(
            tuple(t.replace("{w}", what).replace("{k}", kind).replace("{v}", "{" + key + "}") for t in group)
            for group in (_GENERIC.train, _GENERIC.heldout)
        )
    )
    return ToolSpec(
        name,
        f"Get the {what} of a {kind}.",
        {key: "string"},
        lambda r: {key: value(r)},
        filled,
        lambda r, a: _generic_result(r, what),
        "The " + what + " of {" + key + "} is {" + what + "}.",
    )


def _some_name(rng: random.Random) -> str:
    return p.invented(rng).capitalize() if rng.random() < 0.6 else f"{p.first_name(rng)} {p.last_name(rng)}"

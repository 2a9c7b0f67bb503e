"""Fields to extract: what their values are and the sentences that say them; the makers that the domains share.

In a field with four sentences or more the last one is held out of training, and those of ``more`` are for training
alone. ``{v}`` is the value, ``{s}`` the subject.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.corpus import pools as p
from training.corpus.fact_tables import MONTHS


@dataclass(frozen=True, slots=True)
class Field:
    """``no`` are a boolean field's sentences for false; a list's value is written "a, b and c"."""

    keys: tuple[str, ...]
    make: Callable[[random.Random], Any]
    yes: tuple[str, ...]
    no: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain:
    """``head`` is told first and names the subject; ``subjects`` are the words that point back to it."""

    head: Field
    subjects: tuple[str, ...]
    fields: tuple[Field, ...]


def integer(low: int, high: int) -> Callable[[random.Random], int]:
    """A number from low to high."""
    return lambda rng: rng.randint(low, high)


def one_of(*choices: str) -> Callable[[random.Random], str]:
    """One of the choices."""
    return lambda rng: rng.choice(choices)


def some_of(items: tuple[str, ...]) -> Callable[[random.Random], list[str]]:
    """Two or three of the items."""
    return lambda rng: rng.sample(items, rng.choice((2, 2, 3)))


def flag(rng: random.Random) -> bool:
    """True or false."""
    return rng.random() < 0.5


def price(rng: random.Random) -> float | int:
    """Dollars, now and then with cents."""
    if rng.random() < 0.7:
        return rng.randint(2, 950)
    return rng.randint(1, 90) + rng.choice((0.25, 0.75, 0.95, 0.99, 0.49))


def date(rng: random.Random) -> str:
    """A day and month, now and then with its year."""
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}" + (f" {rng.randint(1990, 2029)}" if rng.random() < 0.5 else "")


def clock(rng: random.Random) -> str:
    """A time of day."""
    return f"{rng.randint(1, 23)}:{rng.choice(('00', '15', '30', '45'))}"


def email(rng: random.Random) -> str:
    """An address."""
    return f"{rng.choice(p.FIRST).lower()}@{p.invented(rng)}.{rng.choice(('com', 'org', 'net'))}"


def person(rng: random.Random) -> str:
    """A first name, mostly with a last name."""
    return f"{p.first_name(rng)} {p.last_name(rng)}" if rng.random() < 0.75 else p.first_name(rng)


def code(rng: random.Random) -> str:
    """Two letters and a number."""
    return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2)) + str(rng.randint(10, 9999))


def field(keys: str, make: Callable[[random.Random], Any], yes: str, no: str = "", more: str = "") -> Field:
    """A field from texts: keys between spaces, sentences between slashes."""

    def sentences(text: str) -> tuple[str, ...]:
        return tuple(text.split(" / ")) if text else ()

    return Field(tuple(keys.split()), make, sentences(yes), sentences(no), sentences(more))


JOBS = one_of(
    *(
        "teacher doctor nurse cook baker farmer driver pilot singer painter engineer lawyer gardener waiter writer"
    ).split()
)
COLOUR = one_of(*"red blue green yellow black white brown grey orange purple pink silver".split())
HOBBIES = some_of(
    tuple("reading swimming chess music football painting cooking dancing running singing fishing tennis".split())
)
FOODS = tuple(
    "flour sugar butter eggs milk salt rice onions tomatoes cheese lemon garlic carrots honey apples beans".split()
)
PRICE = field(
    "price cost",
    price,
    "{s} costs {v} dollars. / The price is {v} dollars. / You can buy {s} for {v} dollars. / "
    "It costs {v} dollars. / The price of {s} is {v} dollars.",
    more="You pay {v} dollars for {s}. / {s} sells for {v} dollars. / "
    "{s} has a price of {v} dollars. / They ask {v} dollars for {s}.",
)
CITY = field(
    "city place",
    p.city,
    "{s} lives in {v}. / {s} is from {v}. / {s} comes from {v}. / {s}'s home is {v}. / {s} has a house in {v}.",
    more="{s} moved to {v}. / {s} has a flat in {v}. / {s} grew up in {v}. / "
    "{s} has always lived in {v}. / {s} has a home in {v}.",
)
AGE = field(
    "age",
    integer(3, 95),
    "{s} is {v} years old. / {s} is {v}. / {s}'s age is {v}. / {s} turned {v} this year. / {s} has the age of {v}.",
    more="{s} is now {v} years old. / {s} has just become {v}. / {s} has reached the age of {v}.",
)
YEAR = integer(1900, 2029)

"""Names and words to fill templates with: real pools and invented ones, so that copying is learned, not a list."""

from __future__ import annotations

import random

from training.corpus.conversation import Split
from training.corpus.wording import instance

FIRST = (
    "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Ruth Sam Tara Victor Wendy"
    " Alice Bob Carol Daniel Eva Frank Gina Hugo Ivan Julia Karl Laura Mark Nina Oscar Petra Quinn Rosa Simon Tina"
    " Uma Vera Will Yara Zoe Adam Bella Chris Diana Eric Fiona George Hannah Ian Jane Kevin Lily Max Nora Omar Priya"
    " Rahul Sofia Tom Mei Yuki Chen Amir Layla Fatima Ali Diego Carlos Lucia Elena Marco Pierre Marie Hans Greta Lars"
    " Ingrid Olga Boris Kofi Amina Tariq Sarah John Peter Mary James Linda Robert Susan Michael Lisa Thomas Emily"
    " Lucy Mia Ella Ruby Finn Oliver Jacob Ethan"
).split()
LAST = (
    "Smith Brown Miller Berg Stone Young King Wood Hill Green Baker Cook Fisher Hunter Carter Weber Lopez Garcia"
    " Silva Rossi Kim Park Tanaka Sato Wang Chen Singh Patel Khan Novak Larsen Hansen Olsen Meyer Schmidt Fischer"
    " Dubois Martin Moreau Jones Taylor Wilson Moore Clark Lewis Walker Hall Allen Wright Scott Adams Nelson Evans"
    " Turner Parker Collins Reed Murphy Bell Ward Price Gray West Long Ross Fox Day Kelly Lane Marsh Frost Winter"
    " Summers Page Cruz Ortiz Costa"
).split()
CITIES = (
    "Paris London Berlin Rome Madrid Vienna Oslo Lisbon Dublin Athens Prague Warsaw Tokyo Beijing Cairo Moscow Boston"
    " Chicago Seattle Denver Austin Miami Toronto Sydney Mumbai Delhi Lagos Nairobi Lima Bogota Milan Hamburg Munich"
    " Lyon Geneva Zurich Bergen Porto Seville Krakow Bristol Leeds York Oxford Cambridge Glasgow Dallas Houston"
    " Phoenix Portland Kyoto Osaka Seoul Singapore Bangkok Hanoi Manila Jakarta Dubai Doha Accra Tunis Quito Havana"
    " Helsinki Stockholm Copenhagen Brussels"
).split()
_ONSET = "b br c ch d dr f g gr h j k kl l m n p pr qu r s sh st t tr v w y z".split()
_VOWEL = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "a", "e", "ai", "ee", "ou"]
_CODA = ["", "", "", "l", "n", "r", "s", "t", "m", "nd", "rt", "x", "ck"]

NOUNS = (
    "apple book chair dog egg fish garden house island jacket kite lamp moon nest orange pencil queen river sun table"
    " umbrella violin window box yard zebra bread cloud door engine flower glass hat ice key leaf mountain notebook"
    " ocean paper ring snow tree valley water cat bird boat bridge candle cup desk doll drum farm field fire fork"
    " gate gift hand heart horse king knife lake lion map milk mouse night pen phone plant plate rain road rock rose"
    " school sea ship shoe song spoon star stone street sugar tiger train truck wall wind winter wolf wood world bag"
    " ball bear bed bell bike bottle brush bus cake camera car card cheese circle city clock coat coffee corn cow"
    " cream crown dance day deer dress duck earth eye face family finger floor forest friend frog fruit goat gold"
    " grape grass green guitar hair hill honey hotel jam juice king ladder lemon letter light magic market mirror"
    " money monkey morning music needle nose nut onion paint pear pepper piano picture pig planet pocket pond potato"
    " rabbit radio rice robot roof room rope salt sand scarf seed sheep shirt silver sister sky snake soap soup"
    " spider spring square storm story summer swan sweet tea tent thunder ticket tooth towel tower toy turtle village"
    " wagon watch whale wheel yellow"
).split()
WORDS = tuple(dict.fromkeys(NOUNS))
ADJECTIVES = (
    "red blue green small big old new happy brave quiet bright dark warm cold soft quick slow kind silver golden tiny"
    " tall short sweet clean fresh gentle wild calm proud lucky clever busy round"
).split()


def invented(rng: random.Random, low: int = 2, high: int = 3) -> str:
    """An invented word of that many syllables, lower case."""
    count = rng.randint(low, high)
    return "".join(rng.choice(_ONSET) + rng.choice(_VOWEL) for _ in range(count)) + rng.choice(_CODA)


def first_name(rng: random.Random) -> str:
    return rng.choice(FIRST) if rng.random() < 0.7 else invented(rng).capitalize()


def last_name(rng: random.Random) -> str:
    return rng.choice(LAST) if rng.random() < 0.6 else invented(rng).capitalize()


def full_name(rng: random.Random, split: Split) -> str:
    """First and last name; the pair belongs to the split."""
    return instance(rng, split, lambda r: f"{first_name(r)} {last_name(r)}")


def city(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.7 else invented(rng).capitalize()


def word(rng: random.Random) -> str:
    return rng.choice(WORDS) if rng.random() < 0.8 else invented(rng)


def brand(rng: random.Random) -> str:
    """A company's name."""
    base = invented(rng).capitalize() if rng.random() < 0.6 else rng.choice(LAST)
    return base + rng.choice(("", "", " Ltd", " Group", " Systems", " Foods", " Labs", " Media"))


def title(rng: random.Random) -> str:
    """A title of a book, film or song."""
    a, n, m = rng.choice(ADJECTIVES).capitalize(), word(rng).capitalize(), rng.choice(WORDS).capitalize()
    return rng.choice(
        (f"The {a} {n}", f"{a} {n}", f"The {n} and the {m}", f"The {n} of {invented(rng).capitalize()}", f"{n}")
    )

"""What a relation between subjects and answers is, and tables of it made from others."""

from __future__ import annotations

from dataclasses import dataclass

from training.corpus import fact_tables as t
from training.corpus.wording import Wordings


@dataclass(frozen=True, slots=True)
class Relation:
    """``sentence`` is the full answer; ``keys`` name subject and answer in JSON forms; ``follow``: whether one may ask
    on for another subject ("And Italy?").
    """

    name: str
    table: dict[str, str]
    sentence: str
    keys: tuple[str, str]
    wordings: Wordings
    weight: float = 1.0
    follow: bool = True


def steps(items: list[str], step: int) -> dict[str, str]:
    """Each item and the one so many places on, in a circle."""
    return {item: items[(i + step) % len(items)] for i, item in enumerate(items)}


def with_article(table: dict[str, str]) -> dict[str, str]:
    """The table with "a" or "an" before its subjects, where they take one."""
    return {(k if k in t.NO_ARTICLE else f"{'an' if k[0] in 'aeiou' else 'a'} {k}"): v for k, v in table.items()}

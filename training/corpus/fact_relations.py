"""All relations of facts, in the order in which the corpus draws them."""

from __future__ import annotations

from training.corpus.relation import Relation
from training.corpus.relations_calendar import CALENDAR
from training.corpus.relations_creatures import CREATURES
from training.corpus.relations_places import PLACES
from training.corpus.relations_words import WORDS

RELATIONS: tuple[Relation, ...] = (*PLACES, *WORDS, *CREATURES, *CALENDAR)

"""Questions for facts: sentences, one word, JSON, "And of ...?" and yes or no."""

from __future__ import annotations

import json
import random

from training.corpus.conversation import Message, Split
from training.corpus.fact_relations import RELATIONS
from training.corpus.relation import Relation
from training.corpus.single_facts import SINGLE_FACTS
from training.corpus.wording import Exchange, cap, decorate, fill, wordings

_WEIGHTS = [r.weight for r in RELATIONS]
_SUBJECTS = {r.name: tuple(r.table) for r in RELATIONS}
_FOLLOW = wordings(
    """And {x}?
    What about {x}?
    And what about {x}?
    And for {x}?
    Now {x}.
    And now {x}?
    The same for {x}?""",
    """And how about {x}?
    Now the same for {x}.""",
)
_RIGHT = wordings(
    """Is {y} the capital of {x}?
    Is it true that {y} is the capital of {x}?
    Is the capital of {x} {y}?
    {y} is the capital of {x}. True or false?
    {y} is the capital of {x}, right?""",
    """Am I right that {y} is the capital of {x}?
    Is it right that the capital of {x} is {y}?""",
)


def _pieces(relation: Relation, subject: str) -> dict[str, str]:
    answer = relation.table[subject]
    parts, _, thing = subject.rpartition("@")
    return {"x": thing, "X": cap(thing), "y": answer, "p": parts, "a": "an" if answer[0] in "aeiou" else "a"}


def _bare(text: str) -> str:
    """A subject without its article, as it stands in JSON."""
    for article in ("a ", "an "):
        if text.startswith(article):
            return text[len(article) :]
    return text


def ask(rng: random.Random, split: Split, relation: Relation, subject: str) -> Exchange:
    """One question of the relation in one of the split's wordings."""
    slots = _pieces(relation, subject)
    question = decorate(rng, cap(fill(relation.wordings.pick(rng, split), **slots)))
    value: object = int(slots["y"]) if slots["y"].isdigit() else slots["y"]
    structured = json.dumps({relation.keys[1]: value}, ensure_ascii=False)
    return Exchange("facts", question, cap(fill(relation.sentence, **slots)), short=cap(slots["y"]), json=structured)


def fact(rng: random.Random, split: Split) -> Exchange:
    """A question about one fact."""
    if rng.random() < 0.1:
        single = rng.choice(SINGLE_FACTS)
        question = rng.choice(single.train if split == "train" else single.heldout)
        return Exchange("facts", decorate(rng, question), single.sentence, short=cap(single.answer))
    relation = rng.choices(RELATIONS, _WEIGHTS)[0]
    return ask(rng, split, relation, rng.choice(_SUBJECTS[relation.name]))


def fact_series(rng: random.Random, split: Split) -> Exchange:
    """A question and one or two that go on from it ("And Germany?")."""
    relation = rng.choices(RELATIONS, _WEIGHTS)[0]
    while not relation.follow:
        relation = rng.choices(RELATIONS, _WEIGHTS)[0]
    subjects = rng.sample(_SUBJECTS[relation.name], rng.choice((2, 2, 3)))
    messages: list[Message] = list(ask(rng, split, relation, subjects[0]).rendered())
    for subject in subjects[1:]:
        following = ask(rng, split, relation, subject)
        question = fill(_FOLLOW.pick(rng, split), x=subject)
        if rng.random() < 0.12:
            question = question.lower()
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": following.answer}]
    return Exchange("facts", "", following.answer, messages=tuple(messages))


def true_or_false(rng: random.Random, split: Split) -> Exchange:
    """Whether a city is a country's capital; a wrong one is put right."""
    capitals = RELATIONS[0].table
    country = rng.choice(_SUBJECTS["capital"])
    right = capitals[country]
    said = right if rng.random() < 0.5 else capitals[rng.choice(_SUBJECTS["capital"])]
    question = decorate(rng, fill(_RIGHT.pick(rng, split), x=country, y=said))
    answer = f"{'Yes' if said == right else 'No'}, the capital of {country} is {right}."
    return Exchange("facts", question, answer)


_JSON_BOTH = wordings(
    """Give me the {s} and {o} of {x} in JSON with keys "{s}" and "{o}".
    {X}: answer in JSON with the keys "{s}" and "{o}".
    Write a JSON object with "{s}" and "{o}" for {x}.
    Return JSON with keys {s} and {o} for {x}.
    For {x}, return a JSON object with the keys {s}, {o}.""",
    """For {x}, answer in JSON with keys "{s}" and "{o}".
    Give me a JSON object with {s} and {o} for {x}.""",
)


def fact_object(rng: random.Random, split: Split) -> Exchange:
    """A fact as a JSON object of subject and answer."""
    relation = rng.choices(RELATIONS[:7], _WEIGHTS[:7])[0]
    subject = rng.choice(_SUBJECTS[relation.name])
    key, other = relation.keys
    question = fill(_JSON_BOTH.pick(rng, split), x=subject, X=cap(subject), s=key, o=other)
    answer = json.dumps({key: _bare(subject), other: relation.table[subject]}, ensure_ascii=False)
    return Exchange("json", question, answer)


# Facts too rare in the stream would not be learned: relations are drawn by weight, subjects evenly.
MAKERS = ((fact, 1.0), (fact_series, 0.07), (true_or_false, 0.05))

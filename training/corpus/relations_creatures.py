"""Relations of animals and things: sounds, young, legs, classes, chemical symbols."""

from __future__ import annotations

from training.corpus import fact_tables as t
from training.corpus.relation import Relation, with_article
from training.corpus.wording import wordings

CREATURES: tuple[Relation, ...] = (
    Relation(
        "sound",
        with_article(t.SOUNDS),
        "{X} {y}.",
        ("animal", "sound"),
        wordings(
            """What sound does {x} make?
            Which sound does {x} make?
            What noise does {x} make?
            What is the sound of {x}?
            [Tell me|Name] the sound {x} makes.
            How does {x} sound?
            {X} makes what sound?
            {X} makes which noise?
            Do you know the sound of {x}?
            Can you tell me the sound of {x}?
            What does {x} say?
            Which noise does {x} make?""",
            """Tell me what sound {x} makes.
            What kind of sound does {x} make?
            What is the noise {x} makes?""",
        ),
        weight=0.6,
    ),
    Relation(
        "young",
        with_article(t.YOUNG),
        "The young of {x} is called a {y}.",
        ("animal", "young"),
        wordings(
            """What is the young of {x} called?
            What do you call the young of {x}?
            What is the baby of {x} called?
            What do you call the baby of {x}?
            What is the name of the young of {x}?
            What is the name for the baby of {x}?
            [Name|Tell me|Give me] the young of {x}.
            How do we call the [young|baby] of {x}?
            The [young|baby] of {x} is called what?
            The young of {x} is called ...?
            Do you know the name of the young of {x}?
            Which word do we use for the young of {x}?""",
            """Tell me what the young of {x} is called.
            What do we call the baby of {x}?
            What is the name of the baby of {x}?""",
        ),
        weight=0.6,
    ),
    Relation(
        "legs",
        with_article(t.LEGS),
        "{X} has {y} legs.",
        ("thing", "legs"),
        wordings(
            """How many legs does {x} have?
            How many legs has {x} got?
            {X} has how many legs?
            What is the number of legs of {x}?
            [Tell me|Give me] the number of legs of {x}.
            Do you know how many legs {x} has?
            How many legs are there on {x}?
            On how many legs does {x} walk?
            Number of legs of {x}?
            Count the legs of {x}.
            Can you tell me how many legs {x} has?
            How many legs can you count on {x}?""",
            """Tell me how many legs {x} has.
            What number of legs does {x} have?
            I want to know how many legs {x} has.""",
        ),
        weight=0.8,
    ),
    Relation(
        "class",
        with_article(t.CLASSES),
        "{X} is {a} {y}.",
        ("thing", "class"),
        wordings(
            """What is {x}?
            What kind of thing is {x}?
            [What|Which] group does {x} belong to?
            To which [group|class] does {x} belong?
            {X} is what kind of thing?
            [What|Which] class does {x} belong to?
            What sort of thing is {x}?
            What type of thing is {x}?
            {X} belongs to which [group|class]?
            Tell me what {x} is.
            Tell me what kind of thing {x} is.
            Do you know what {x} is?
            Can you tell me what {x} is?
            In which [group|class] is {x}?
            How would you classify {x}?""",
            """{X} is what sort of thing?
            Tell me the class {x} belongs to.
            Do you know what kind of thing {x} is?
            {X} belongs to what group?""",
        ),
        weight=1.6,
    ),
    Relation(
        "symbol",
        t.SYMBOLS,
        "The chemical symbol of {x} is {y}.",
        ("substance", "symbol"),
        wordings(
            """What is the chemical symbol of {x}?
            What is the chemical symbol for {x}?
            What's the symbol [for|of] {x}?
            [Name|Tell me|Give me|Write] the chemical symbol [of|for] {x}.
            Which chemical symbol does {x} have?
            What is the symbol of {x} in chemistry?
            In chemistry, how do you write {x}?
            Chemical symbol of {x}?
            Which symbol stands for {x}?
            What is the chemical formula [of|for] {x}?
            Can you tell me the chemical symbol of {x}?
            The chemical symbol of {x} is ...?""",
            """Do you know the chemical symbol of {x}?
            What symbol does {x} have in chemistry?
            In chemistry, what is the symbol for {x}?""",
        ),
        weight=0.5,
    ),
)

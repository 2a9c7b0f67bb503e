"""Relations of colours and words: opposites, plurals, past tenses."""

from __future__ import annotations

from training.corpus import fact_tables as t
from training.corpus.relation import Relation
from training.corpus.wording import wordings

WORDS: tuple[Relation, ...] = (
    Relation(
        "colour",
        t.COLOURS,
        "{X} is {y}.",
        ("thing", "colour"),
        wordings(
            """[What|Which] [colour|color] is {x}?
            What is the [colour|color] of {x}?
            What's the [colour|color] of {x}?
            [Tell me|Name|Give me|Say] the [colour|color] of {x}.
            What [colour|color] does {x} have?
            Which [colour|color] does {x} have?
            {X} has what [colour|color]?
            {X} has which [colour|color]?
            {X} is what [colour|color]?
            Do you know the [colour|color] of {x}?
            Can you tell me the [colour|color] of {x}?
            The [colour|color] of {x} is[ ...|]?
            [Colour|Color] of {x}?
            In which [colour|color] do we see {x}?
            Name a [colour|color]: what is the [colour|color] of {x}?""",
            """{X} is which [colour|color]?
            Tell me what [colour|color] {x} is.
            What would you say is the [colour|color] of {x}?
            Do you know what [colour|color] {x} is?""",
        ),
        weight=1.2,
    ),
    Relation(
        "opposite",
        {**{v: k for k, v in t.OPPOSITES.items()}, **t.OPPOSITES},
        "The opposite of {x} is {y}.",
        ("word", "opposite"),
        wordings(
            """What is the opposite of {x}?
            What's the opposite of [{x}|"{x}"]?
            [Name|Tell me|Give me|Write|Say] the opposite of [{x}|"{x}"].
            The opposite of {x} is[ ...| what|]?
            Opposite of {x}?
            Which word is the opposite of [{x}|"{x}"]?
            Which word means the opposite of {x}?
            What word is the opposite of {x}?
            What is the opposite of the word [{x}|"{x}"]?
            [{x}|"{x}"] is the opposite of what?
            [{x}|"{x}"] is the opposite of which word?
            Can you [tell me|name|give me] the opposite of {x}?
            Complete: The opposite of {x} is
            Find the opposite of [{x}|"{x}"].
            What is the antonym of {x}?
            Not {x}, but the opposite: which word is it?""",
            """Do you know the opposite of {x}?
            What word means the opposite of {x}?
            Give me a word that is the opposite of {x}.
            Tell me the opposite of the word {x}.""",
        ),
        weight=1.8,
    ),
    Relation(
        "plural",
        t.PLURALS,
        "The plural of {x} is {y}.",
        ("word", "plural"),
        wordings(
            """What is the plural of {x}?
            What's the plural of [{x}|"{x}"]?
            [Name|Tell me|Give me|Write|Say] the plural of [{x}|"{x}"].
            [Tell me|Give me|Write] the plural form of [{x}|"{x}"].
            The plural of {x} is[ ...| what|]?
            Plural of {x}?
            What is the plural form of [{x}|"{x}"]?
            What is the plural of the word [{x}|"{x}"]?
            One {x}, two what?
            Write [{x}|"{x}"] in the plural.
            Put [{x}|"{x}"] in the plural.
            Which word is the plural of {x}?
            Can you [tell me|give me] the plural of {x}?
            How do you write the plural of {x}?
            Complete: The plural of {x} is
            [How|What] do you say for more than one {x}?""",
            """Do you know the plural of {x}?
            What do you call more than one {x}?
            Give me the word "{x}" in the plural.
            What word is the plural of {x}?""",
        ),
        weight=1.4,
    ),
    Relation(
        "past",
        t.PAST,
        "The past tense of {x} is {y}.",
        ("verb", "past"),
        wordings(
            """What is the past tense of [{x}|"{x}"|to {x}]?
            What's the past tense of [{x}|"{x}"]?
            [Name|Tell me|Give me|Write|Say] the past tense of [{x}|"{x}"].
            The past tense of {x} is[ ...|]?
            Past tense of {x}?
            What is the past [form|tense] of the verb [{x}|"{x}"]?
            What is the past form of {x}?
            Write [{x}|"{x}"] in the past tense.
            Put the verb [{x}|"{x}"] in the past tense.
            Can you [tell me|give me] the past tense of {x}?
            Today I {x}, yesterday I ...?
            Which word is the past tense of {x}?""",
            """Do you know the past tense of {x}?
            Put "{x}" in the past tense.
            What word is the past tense of {x}?""",
        ),
        weight=0.8,
    ),
)

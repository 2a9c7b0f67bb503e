"""Relations of places: capitals, continents, languages."""

from __future__ import annotations

from training.corpus import fact_tables as t
from training.corpus.relation import Relation
from training.corpus.wording import wordings

PLACES: tuple[Relation, ...] = (
    Relation(
        "capital",
        t.CAPITALS,
        "The capital of {x} is {y}.",
        ("country", "capital"),
        wordings(
            """What is the capital of {x}?
            What's the capital [city |]of {x}?
            Which city is the capital of {x}?
            [Name|Tell me|Give me|Say] the capital of {x}.
            [Name|Tell me|Give me|Write] the capital city of {x}.
            What is {x}'s capital[ city|]?
            The capital of {x} is[ ...| what|]?
            Capital of {x}?
            {x}: capital?
            What city is the capital of {x}?
            Do you know the capital[ city|] of {x}?
            Can you [tell me|name|give me] the capital of {x}?
            Can you tell me what the capital of {x} is?
            [I want to know|I need|I am looking for] the capital of {x}.
            Which city is {x}'s capital?
            What is the name of the capital of {x}?
            What is the name of {x}'s capital city?
            Complete: The capital of {x} is
            Which capital does {x} have?
            For {x}, what is the capital?""",
            """Which is the capital city of {x}?
            Could you tell me the capital of {x}?
            What city is {x}'s capital?
            Do you know what the capital of {x} is?""",
        ),
        weight=2.6,
    ),
    Relation(
        "country_of_capital",
        {v: k for k, v in t.CAPITALS.items()},
        "{x} is the capital of {y}.",
        ("capital", "country"),
        wordings(
            """{x} is the capital of which country?
            [Which|What] country has {x} as its capital[ city|]?
            Of which country is {x} the capital?
            {x} is the capital of what country?
            Name the country whose capital is {x}.
            What country is {x} the capital of?
            Which country's capital is {x}?
            [Tell me|Give me] the country with the capital {x}.
            Complete: {x} is the capital of
            The city {x} is the capital of which country?
            Which country has the capital {x}?
            Whose capital is {x}?
            I want to know which country has {x} as its capital.""",
            """Which country is {x} the capital of?
            Tell me which country has {x} as its capital.
            {x} is the capital city of which country?""",
        ),
        weight=1.0,
    ),
    Relation(
        "continent",
        t.CONTINENTS,
        "{x} is in {y}.",
        ("country", "continent"),
        wordings(
            """[Which|What] continent is {x} in?
            On which continent is {x}?
            On [which|what] continent can you find {x}?
            In which continent is {x}?
            What is the continent of {x}?
            Name the continent of {x}.
            [Tell me|Name|Give me] the continent {x} is in.
            {x} is on which continent?
            {x} is in which continent?
            {x}: which continent?
            {x} belongs to which continent?
            [Which|What] continent does {x} belong to?
            To which continent does {x} belong?
            Can you tell me the continent of {x}?
            Do you know which continent {x} is in?
            Where is {x}? Name the continent.""",
            """What continent is {x} on?
            Tell me which continent {x} is in.
            On what continent is {x}?
            {x} is part of which continent?""",
        ),
        weight=1.2,
    ),
    Relation(
        "language",
        t.LANGUAGES,
        "People in {x} speak {y}.",
        ("country", "language"),
        wordings(
            """[Which|What] language do people speak in {x}?
            [Which|What] language do people in {x} speak?
            [Which|What] language is spoken in {x}?
            What is the language of {x}?
            What is the [main|official] language of {x}?
            In {x}, which language do people speak?
            Name the language of {x}.
            [Tell me|Name] the language people speak in {x}.
            What do people speak in {x}?
            Language of {x}?
            Which language does {x} speak?
            Can you tell me the language of {x}?
            Do you know which language people speak in {x}?""",
            """What language do they speak in {x}?
            What is the language spoken in {x}?
            Tell me which language is spoken in {x}.""",
        ),
        weight=0.7,
    ),
)

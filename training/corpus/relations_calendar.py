"""Relations of days, months, planets, and how many there are of what."""

from __future__ import annotations

from training.corpus import fact_tables as t
from training.corpus.relation import Relation, steps
from training.corpus.wording import wordings

CALENDAR: tuple[Relation, ...] = (
    Relation(
        "day_after",
        steps(t.DAYS, 1),
        "The day after {x} is {y}.",
        ("day", "next"),
        wordings(
            """[What|Which] day comes after {x}?
            [What|Which] day is after {x}?
            What is the day after {x}?
            [Name|Tell me|Give me] the day after {x}.
            After {x} comes which day?
            The day after {x} is[ ...| what|]?
            [What|Which] day follows {x}?
            If today is {x}, what day is tomorrow?
            Today is {x}. [What|Which] day is tomorrow?
            What comes after {x}?
            [What|Which] day of the week comes after {x}?
            What is the next day after {x}?
            Day after {x}?""",
            """If today is {x}, which day is tomorrow?
            Tell me which day comes after {x}.
            Which day of the week follows {x}?""",
        ),
        weight=0.4,
    ),
    Relation(
        "day_before",
        steps(t.DAYS, -1),
        "The day before {x} is {y}.",
        ("day", "previous"),
        wordings(
            """[What|Which] day comes before {x}?
            [What|Which] day is before {x}?
            What is the day before {x}?
            [Name|Tell me|Give me] the day before {x}.
            Before {x} comes which day?
            The day before {x} is[ ...| what|]?
            If today is {x}, what day was yesterday?
            Today is {x}. [What|Which] day was yesterday?
            What comes before {x}?
            [What|Which] day of the week comes before {x}?
            Day before {x}?""",
            """If today is {x}, which day was yesterday?
            Tell me which day comes before {x}.
            Which day of the week is before {x}?""",
        ),
        weight=0.4,
    ),
    Relation(
        "month_after",
        steps(t.MONTHS, 1),
        "The month after {x} is {y}.",
        ("month", "next"),
        wordings(
            """[What|Which] month comes after {x}?
            [What|Which] month is after {x}?
            What is the month after {x}?
            [Name|Tell me|Give me] the month after {x}.
            After {x} comes which month?
            The month after {x} is[ ...| what|]?
            [What|Which] month follows {x}?
            What is the next month after {x}?
            What comes after {x}?
            If this month is {x}, what is the next month?
            Month after {x}?""",
            """If this month is {x}, which month comes next?
            Tell me which month comes after {x}.
            Which month of the year follows {x}?""",
        ),
        weight=0.5,
    ),
    Relation(
        "month_before",
        steps(t.MONTHS, -1),
        "The month before {x} is {y}.",
        ("month", "previous"),
        wordings(
            """[What|Which] month comes before {x}?
            [What|Which] month is before {x}?
            What is the month before {x}?
            [Name|Tell me|Give me] the month before {x}.
            Before {x} comes which month?
            The month before {x} is[ ...| what|]?
            What comes before {x}?
            Month before {x}?
            [What|Which] month of the year comes before {x}?""",
            """If this month is {x}, which month was before?
            Tell me which month comes before {x}.
            Which month of the year is before {x}?""",
        ),
        weight=0.5,
    ),
    Relation(
        "month_days",
        t.MONTH_DAYS,
        "{x} has {y} days.",
        ("month", "days"),
        wordings(
            """How many days does {x} have?
            How many days has {x} got?
            How many days are [there |]in {x}?
            {x} has how many days?
            What is the number of days in {x}?
            [Tell me|Give me] the number of days in {x}.
            How many days does the month of {x} have?
            How long is {x} in days?
            Can you tell me how many days {x} has?
            Number of days in {x}?""",
            """Tell me how many days {x} has.
            Do you know how many days {x} has?
            How many days are in the month of {x}?""",
        ),
        weight=0.5,
    ),
    Relation(
        "nth_month",
        dict(zip(t.ORDINALS, t.MONTHS, strict=True)),
        "The {x} month of the year is {y}.",
        ("place", "month"),
        wordings(
            """[What|Which] is the {x} month of the year?
            [What|Which] month is the {x} month of the year?
            [Name|Tell me|Give me] the {x} month of the year.
            The {x} month of the year is[ ...| what|]?
            [What|Which] month comes {x} in the year?
            The {x} month?
            What is the name of the {x} month?
            [What|Which] month is the {x} in a year?""",
            """Which month of the year is the {x}?
            Do you know the {x} month of the year?
            Tell me which month is the {x} of the year.""",
        ),
        weight=0.4,
        follow=False,
    ),
    Relation(
        "nth_planet",
        dict(zip(t.ORDINALS, t.PLANETS, strict=False)),
        "The {x} planet from the sun is {y}.",
        ("place", "planet"),
        wordings(
            """[What|Which] is the {x} planet from the sun?
            [What|Which] planet is the {x} from the sun?
            [Name|Tell me|Give me] the {x} planet from the sun.
            The {x} planet from the sun is[ ...| what|]?
            [What|Which] planet comes {x} from the sun?
            The {x} planet of the solar system?
            What is the name of the {x} planet from the sun?
            Counting from the sun, [what|which] is the {x} planet?""",
            """Which planet is in the {x} place from the sun?
            Do you know the {x} planet from the sun?
            Tell me which planet is the {x} from the sun.""",
        ),
        weight=0.3,
        follow=False,
    ),
    Relation(
        "count",
        t.COUNTS,
        "There are {y} {p} in {x}.",
        ("thing", "number"),
        wordings(
            """How many {p} are there in {x}?
            How many {p} are in {x}?
            How many {p} does {x} have?
            What is the number of {p} in {x}?
            [Tell me|Give me|Write] the number of {p} in {x}.
            {X} has how many {p}?
            How many {p} make {x}?
            Number of {p} in {x}?
            Do you know how many {p} are in {x}?
            Can you tell me how many {p} there are in {x}?
            In {x}, how many {p} are there?
            How many {p} has {x} got?""",
            """Tell me how many {p} there are in {x}.
            How many {p} can you find in {x}?
            Do you know how many {p} {x} has?""",
        ),
        weight=0.9,
        follow=False,
    ),
)

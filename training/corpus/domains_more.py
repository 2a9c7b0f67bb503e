"""Texts of flights, books, pets, dishes and companies."""

from __future__ import annotations

from training.corpus import pools as p
from training.corpus.domain import (
    COLOUR,
    FOODS,
    PRICE,
    YEAR,
    Domain,
    clock,
    code,
    field,
    flag,
    integer,
    one_of,
    person,
    some_of,
)

MORE: tuple[Domain, ...] = (
    Domain(
        field(
            "flight number",
            code,
            "The flight is {v}. / Flight {v} is ready. / My flight is {v}. / I take flight {v}. / "
            "The number of the flight is {v}.",
        ),
        ("It", "The flight"),
        (
            field(
                "from origin",
                p.city,
                "{s} leaves from {v}. / {s} starts in {v}. / {s} comes from {v}. / {s} takes off in {v}.",
            ),
            field(
                "to destination",
                p.city,
                "{s} goes to {v}. / {s} flies to {v}. / {s} lands in {v}. / The destination is {v}. / "
                "{s} will land in {v}.",
            ),
            field(
                "gate",
                lambda r: f"{r.choice('ABCDEFGH')}{r.randint(1, 40)}",
                "The gate is {v}. / Go to gate {v}. / {s} leaves from gate {v}. / {s} is at gate {v}.",
            ),
            field(
                "time departure",
                clock,
                "{s} leaves at {v}. / The time is {v}. / {s} starts at {v}. / {s} takes off at {v}.",
            ),
            field(
                "seat",
                lambda r: f"{r.randint(1, 40)}{r.choice('ABCDEF')}",
                "The seat is {v}. / My seat is {v}. / I sit in {v}. / The seat number is {v}.",
            ),
            field("delayed late", flag, "{s} is late. / {s} is delayed.", "{s} is on time. / {s} is not late."),
        ),
    ),
    Domain(
        field(
            "title book name",
            p.title,
            "The book is called {v}. / I read {v}. / The title is {v}. / {v} is a book. / "
            "I like the book {v}. / The name of the book is {v}.",
        ),
        ("It", "The book"),
        (
            field(
                "author writer",
                person,
                "{s} was written by {v}. / The author is {v}. / {s} is by {v}. / {v} wrote it. / "
                "{s} comes from the author {v}.",
            ),
            field(
                "year",
                YEAR,
                "{s} came out in {v}. / {s} is from {v}. / The year is {v}. / {s} was printed in {v}. / "
                "It appeared in {v}.",
            ),
            field(
                "pages",
                integer(40, 900),
                "{s} has {v} pages. / There are {v} pages. / {s} is {v} pages long. / The number of pages is {v}.",
            ),
            field(
                "language",
                one_of("English", "French", "German", "Spanish", "Italian"),
                "{s} is in {v}. / The language is {v}. / {s} was written in {v}. / You can read it in {v}.",
            ),
            PRICE,
        ),
    ),
    Domain(
        field(
            "name pet",
            p.first_name,
            "My pet is called {v}. / This is {v}. / I have a pet named {v}. / {v} is my pet. / The pet is named {v}.",
        ),
        ("It", "The animal"),
        (
            field(
                "animal species kind",
                one_of(*"dog cat horse rabbit parrot hamster fish turtle snake mouse bird goat".split()),
                "{s} is a {v}. / I have a {v}. / The animal is a {v}. / The pet is a {v}.",
            ),
            field(
                "age",
                integer(1, 20),
                "{s} is {v} years old. / The age is {v}. / {s} turned {v}. / {s} is {v} now.",
            ),
            field("color colour", COLOUR, "{s} is {v}. / The color is {v}. / {s} has {v} hair. / {s} looks {v}."),
            field("owner", person, "The owner is {v}. / {s} belongs to {v}. / {v} is the owner. / {v} owns the pet."),
            field(
                "friendly",
                flag,
                "{s} is friendly. / {s} likes people.",
                "{s} is not friendly. / {s} does not like people.",
            ),
        ),
    ),
    Domain(
        field(
            "dish recipe name",
            lambda r: (
                f"{r.choice(p.ADJECTIVES)} {r.choice(('soup', 'cake', 'pie', 'bread', 'salad', 'stew', p.word(r)))}"
            ),
            "Today we cook {v}. / The dish is {v}. / This is a recipe for {v}. / I cook {v}. / Let us make {v}.",
        ),
        ("It", "The dish"),
        (
            field(
                "ingredients",
                some_of(FOODS),
                "You need {v}. / The ingredients are {v}. / Take {v}. / Use {v}. / {s} is made with {v}.",
            ),
            field(
                "minutes time",
                integer(5, 180),
                "{s} takes {v} minutes. / {s} is ready in {v} minutes. / Cook {s} for {v} minutes. / "
                "The time is {v} minutes.",
            ),
            field(
                "servings people",
                integer(1, 12),
                "{s} is for {v} people. / {s} serves {v}. / It is enough for {v} people. / {s} feeds {v} people.",
            ),
            field(
                "cook chef",
                person,
                "The cook is {v}. / {v} is the cook. / The recipe is by {v}. / The recipe comes from {v}.",
            ),
            field(
                "vegetarian",
                flag,
                "{s} is vegetarian. / There is no meat in it.",
                "{s} is not vegetarian. / There is meat in it.",
            ),
        ),
    ),
    Domain(
        field(
            "company name",
            p.brand,
            "The company is {v}. / {v} is a company. / I work for {v}. / This is about {v}. / "
            "The name of the company is {v}.",
        ),
        ("It", "The company"),
        (
            field(
                "city location",
                p.city,
                "{s} is in {v}. / {s} sits in {v}. / The city is {v}. / {s} has an office in {v}. / "
                "You find {s} in {v}.",
            ),
            field(
                "founded year",
                YEAR,
                "{s} was founded in {v}. / {s} began in {v}. / {s} started in {v}. / {s} exists since {v}.",
            ),
            field(
                "employees workers",
                integer(2, 9000),
                "{s} has {v} employees. / {v} people work there. / There are {v} employees. / "
                "The number of employees is {v}.",
            ),
            field(
                "boss director leader",
                person,
                "The boss is {v}. / {v} leads {s}. / {s} is led by {v}. / The director is {v}.",
            ),
            field(
                "product",
                lambda r: r.choice(p.WORDS) + "s",
                "{s} makes {v}. / {s} sells {v}. / The product is {v}. / {s} is known for {v}.",
            ),
        ),
    ),
)

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
            more="We fly with {v}. / This is flight {v}. / {v} is my flight. / The flight has the number {v}.",
        ),
        ("It", "The flight"),
        (
            field(
                "from origin",
                p.city,
                "{s} leaves from {v}. / {s} starts in {v}. / {s} comes from {v}. / {s} takes off in {v}.",
                more="{s} departs from {v}. / {s} begins in {v}. / It all starts in {v}. / {s} takes you from {v}.",
            ),
            field(
                "to destination",
                p.city,
                "{s} goes to {v}. / {s} flies to {v}. / {s} lands in {v}. / The destination is {v}. / "
                "{s} will land in {v}.",
                more="{s} arrives in {v}. / {s} ends in {v}. / {s} brings you to {v}. / {s} is bound for {v}.",
            ),
            field(
                "gate",
                lambda r: f"{r.choice('ABCDEFGH')}{r.randint(1, 40)}",
                "The gate is {v}. / Go to gate {v}. / {s} leaves from gate {v}. / {s} is at gate {v}.",
                more="{s} waits at gate {v}. / Find gate {v}. / The gate has the number {v}.",
            ),
            field(
                "time departure",
                clock,
                "{s} leaves at {v}. / The time is {v}. / {s} starts at {v}. / {s} takes off at {v}.",
                more="{s} departs at {v}. / {s} is set for {v}. / {s} will go at {v}.",
            ),
            field(
                "seat",
                lambda r: f"{r.randint(1, 40)}{r.choice('ABCDEF')}",
                "The seat is {v}. / My seat is {v}. / I sit in {v}. / The seat number is {v}.",
                more="I have seat {v}. / Take seat {v}. / {v} is my seat.",
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
            more="She gave me {v}. / Have you read {v}? / {v} lies on the table.",
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
                more="{s} was sold first in {v}. / {s} dates from {v}. / {s} has been known since {v}.",
            ),
            field(
                "pages",
                integer(40, 900),
                "{s} has {v} pages. / There are {v} pages. / {s} is {v} pages long. / The number of pages is {v}.",
                more="{s} counts {v} pages. / I read all {v} pages. / {s} fills {v} pages.",
            ),
            field(
                "language",
                one_of("English", "French", "German", "Spanish", "Italian"),
                "{s} is in {v}. / The language is {v}. / {s} was written in {v}. / You can read it in {v}.",
                more="{s} is told in {v}. / The words are {v}. / {s} speaks {v}.",
            ),
            PRICE,
        ),
    ),
    Domain(
        field(
            "name pet",
            p.first_name,
            "My pet is called {v}. / This is {v}. / I have a pet named {v}. / {v} is my pet. / The pet is named {v}.",
            more="We call our pet {v}. / The name of my pet is {v}. / Say hello to {v}.",
        ),
        ("It", "The animal"),
        (
            field(
                "animal species kind",
                one_of(*"dog cat horse rabbit parrot hamster fish turtle snake mouse bird goat".split()),
                "{s} is a {v}. / I have a {v}. / The animal is a {v}. / The pet is a {v}.",
                more="{s} was born a {v}. / It is a nice {v}. / You see a {v}.",
            ),
            field(
                "age",
                integer(1, 20),
                "{s} is {v} years old. / The age is {v}. / {s} turned {v}. / {s} is {v} now.",
                more="{s} has lived for {v} years. / {s} is {v} years of age. / {s} reached {v}.",
            ),
            field(
                "color colour",
                COLOUR,
                "{s} is {v}. / The color is {v}. / {s} has {v} hair. / {s} looks {v}.",
                more="{s} has a {v} coat. / {s} is all {v}. / {s} was born {v}.",
            ),
            field(
                "owner",
                person,
                "The owner is {v}. / {s} belongs to {v}. / {v} is the owner. / {v} owns the pet.",
                more="{s} lives with {v}. / {v} cares for it. / {s} is the pet of {v}.",
            ),
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
            more="We all like {v}. / {v} is on the table. / Here is how to cook {v}.",
        ),
        ("It", "The dish"),
        (
            field(
                "ingredients",
                some_of(FOODS),
                "You need {v}. / The ingredients are {v}. / Take {v}. / Use {v}. / {s} is made with {v}.",
                more="{s} contains {v}. / Mix {v}. / {s} needs {v}.",
            ),
            field(
                "minutes time",
                integer(5, 180),
                "{s} takes {v} minutes. / {s} is ready in {v} minutes. / Cook {s} for {v} minutes. / "
                "The time is {v} minutes.",
                more="{s} needs {v} minutes. / Wait {v} minutes. / After {v} minutes {s} is done.",
            ),
            field(
                "servings people",
                integer(1, 12),
                "{s} is for {v} people. / {s} serves {v}. / It is enough for {v} people. / {s} feeds {v} people.",
                more="{v} people can eat from {s}. / {s} is made for {v} people.",
            ),
            field(
                "cook chef",
                person,
                "The cook is {v}. / {v} is the cook. / The recipe is by {v}. / The recipe comes from {v}.",
                more="{v} made the dish. / I have the recipe from {v}. / {v} stands in the kitchen.",
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
            more="She leads {v}. / {v} is known to all. / I bought from {v}.",
        ),
        ("It", "The company"),
        (
            field(
                "city location",
                p.city,
                "{s} is in {v}. / {s} sits in {v}. / The city is {v}. / {s} has an office in {v}. / "
                "You find {s} in {v}.",
                more="{s} has its home in {v}. / {s} works in {v}. / {s} was built in {v}.",
            ),
            field(
                "founded year",
                YEAR,
                "{s} was founded in {v}. / {s} began in {v}. / {s} started in {v}. / {s} exists since {v}.",
                more="{s} was set up in {v}. / {s} is there since {v}. / "
                "{s} has been there since {v}. / {s} goes back to {v}.",
            ),
            field(
                "employees workers",
                integer(2, 9000),
                "{s} has {v} employees. / {v} people work there. / There are {v} employees. / "
                "The number of employees is {v}.",
                more="{s} employs {v} people. / {s} gives work to {v} people. / {v} workers are in {s}.",
            ),
            field(
                "boss director leader",
                person,
                "The boss is {v}. / {v} leads {s}. / {s} is led by {v}. / The director is {v}.",
                more="{v} runs {s}. / The leader is {v}. / {s} has {v} as its director.",
            ),
            field(
                "product",
                lambda r: r.choice(p.WORDS) + "s",
                "{s} makes {v}. / {s} sells {v}. / The product is {v}. / {s} is known for {v}.",
                more="{s} offers {v}. / You can buy {v} there. / {s} builds {v}. / {s} lives from {v}.",
            ),
        ),
    ),
)

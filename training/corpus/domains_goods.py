"""Texts of persons, products, events and orders."""

from __future__ import annotations

from training.corpus import pools as p
from training.corpus.domain import (
    AGE,
    CITY,
    COLOUR,
    HOBBIES,
    JOBS,
    PRICE,
    Domain,
    clock,
    code,
    date,
    email,
    field,
    flag,
    integer,
    one_of,
    person,
    price,
)
from training.corpus.fact_tables import DAYS

GOODS: tuple[Domain, ...] = (
    Domain(
        field(
            "name name name full_name person",
            person,
            "This is {v}. / My friend is {v}. / {v} is a new guest. / Meet {v}. / I know {v}. / "
            "The name is {v}. / Her name is {v}. / We met {v} today.",
            more="I talked to {v}. / Here is {v}. / {v} wrote to us. / "
            "His name is {v}. / I know a certain {v}. / {v} can be seen here.",
        ),
        ("She", "He"),
        (
            AGE,
            AGE,
            CITY,
            CITY,
            field(
                "job profession work",
                JOBS,
                "{s} works as a {v}. / {s} is a {v}. / {s}'s job is {v}. / {s} has a job as a {v}. / "
                "{s} has worked as a {v} for years.",
                more="{s} earns money as a {v}. / {s} became a {v}. / "
                "{s} has been a {v} for long. / {s} wants to stay a {v}.",
            ),
            field(
                "email",
                email,
                "{s}'s email is {v}. / The email address is {v}. / You can write to {v}. / "
                "Send mail to {v}. / Write an email to {v}.",
                more="{s} reads mail at {v}. / {s} has the email {v}. / "
                "{s} can be reached at {v}. / Send all letters to {v}.",
            ),
            field(
                "hobbies",
                HOBBIES,
                "{s} likes {v}. / {s}'s hobbies are {v}. / {s} enjoys {v}. / The hobbies are {v}. / {s} loves {v}.",
                more="{s} has fun with {v}. / {s} spends the day with {v}. / {s} is fond of {v}.",
            ),
            field(
                "married",
                flag,
                "{s} is married. / {s} has been married for years.",
                "{s} is not married. / {s} is single.",
            ),
            field(
                "phone",
                integer(100000, 999999),
                "The phone number is {v}. / Call {v}. / {s}'s phone number is {v}. / {s} can be called at {v}.",
                more="{s} can be reached at {v}. / {s} has the number {v}. / Ring {v}. / "
                "{s} answers the phone at {v}. / The number to call is {v}.",
            ),
            field(
                "company employer",
                p.brand,
                "{s} works for {v}. / {s} works at {v}. / The company is {v}. / {s} has a job at {v}.",
                more="{s} has worked for {v} since May. / {s} is paid by {v}. / {s} has an office at {v}. / "
                "{s} found work at {v}. / {s} is with {v}.",
            ),
        ),
    ),
    Domain(
        field(
            "product name item",
            lambda r: f"{r.choice(p.ADJECTIVES)} {p.word(r)}",
            "We sell a {v}. / The product is a {v}. / This is a {v}. / I want to buy a {v}. / Our shop has a {v}.",
            more="Look at this {v}. / Here is a {v}. / They offer a {v}. / I bought a {v}.",
        ),
        ("It", "The product"),
        (
            PRICE,
            PRICE,
            field(
                "color colour",
                COLOUR,
                "{s} is {v}. / The color is {v}. / {s} comes in {v}. / {s} has the color {v}.",
                more="{s} is painted {v}. / {s} has a {v} color. / {s} looks {v}. / {s} shines in {v}.",
            ),
            field(
                "brand maker",
                p.brand,
                "{s} is made by {v}. / The brand is {v}. / {s} comes from {v}. / The maker is {v}.",
                more="{s} carries the name of {v}. / {v} makes {s}. / {s} was built by {v}.",
            ),
            field(
                "in_stock available",
                flag,
                "{s} is in stock. / We have {s} in stock.",
                "{s} is not in stock. / {s} is out of stock.",
            ),
            field(
                "weight",
                integer(1, 90),
                "{s} weighs {v} kilograms. / The weight is {v} kilograms. / "
                "{s} has a weight of {v} kilograms. / Its weight is {v} kilograms.",
                more="{s} is {v} kilograms heavy. / {s} brings {v} kilograms on the scale.",
            ),
            field(
                "rating",
                integer(1, 5),
                "{s} has {v} stars. / The rating is {v} stars. / People gave {s} {v} stars. / {s} got {v} stars.",
                more="{s} earned {v} stars. / {s} is rated {v} stars. / Buyers give {v} stars.",
            ),
        ),
    ),
    Domain(
        field(
            "event name title",
            p.title,
            "The event is called {v}. / {v} is a new show. / Come to {v}. / You are invited to {v}. / Do not miss {v}.",
            more="We go to {v}. / Have you heard of {v}? / {v} is near. / The name of the event is {v}.",
        ),
        ("It", "The event"),
        (
            field(
                "date",
                date,
                "{s} is on {v}. / {s} takes place on {v}. / The date is {v}. / {s} starts on {v}. / "
                "{s} will be on {v}.",
                more="{s} happens on {v}. / Keep {v} free. / {s} is planned for {v}.",
            ),
            field(
                "day",
                one_of(*DAYS),
                "{s} is on a {v}. / {s} is on {v}. / The day is {v}. / {s} takes place on {v}. / {s} will be on {v}.",
                more="{s} happens on {v}. / {s} is planned for {v}. / Come on {v}.",
            ),
            field(
                "time start",
                clock,
                "{s} starts at {v}. / {s} begins at {v}. / The time is {v}. / {s} is at {v}. / Be there at {v}.",
                more="Doors open at {v}. / {s} is set for {v}. / Come at {v}.",
            ),
            field(
                "city place location",
                p.city,
                "{s} is in {v}. / {s} takes place in {v}. / The place is {v}. / We meet in {v}. / {s} will be in {v}.",
                more="{s} happens in {v}. / You find {s} in {v}. / Come to {v}.",
            ),
            field(
                "guests visitors",
                integer(5, 900),
                "{v} guests will come. / There are {v} guests. / We expect {v} guests. / There is room for {v} guests.",
                more="{s} has {v} guests. / {v} guests are invited. / {s} takes {v} guests.",
            ),
            field("free", flag, "{s} is free. / You do not have to pay.", "{s} is not free. / You have to pay."),
        ),
    ),
    Domain(
        field(
            "order_id order id",
            code,
            "The order is {v}. / Order {v} is here. / My order number is {v}. / This is about order {v}. / "
            "The number of the order is {v}.",
            more="I wait for order {v}. / The order has the number {v}. / Here is order {v}.",
        ),
        ("The order", "It"),
        (
            field(
                "customer name",
                person,
                "{s} was placed by {v}. / The customer is {v}. / {s} is for {v}. / {v} ordered it. / "
                "{s} belongs to {v}.",
                more="{s} comes from {v}. / {s} was made by {v}. / {v} is the customer.",
            ),
            field(
                "total price amount",
                price,
                "The total is {v} dollars. / {s} costs {v} dollars. / The amount is {v} dollars. / "
                "The customer pays {v} dollars.",
                more="{s} comes to {v} dollars. / {s} is worth {v} dollars. / The sum is {v} dollars.",
            ),
            field(
                "quantity count",
                integer(1, 60),
                "The quantity is {v}. / There are {v} pieces. / {s} has {v} pieces. / {s} is for {v} pieces.",
                more="The count is {v}. / {v} pieces are in {s}. / {s} holds {v} pieces.",
            ),
            field(
                "items",
                lambda r: r.sample(p.WORDS, r.choice((2, 2, 3))),
                "The items are {v}. / {s} has the items {v}. / The customer wants {v}. / {s} contains {v}.",
                more="{s} holds {v}. / {s} is made of {v}. / The customer gets {v}.",
            ),
            field(
                "city",
                p.city,
                "{s} goes to {v}. / Send it to {v}. / The city is {v}. / {s} will be sent to {v}.",
                more="{s} travels to {v}. / Bring it to {v}. / {s} is on its way to {v}.",
            ),
            field(
                "paid",
                flag,
                "{s} is paid. / The customer has paid.",
                "{s} is not paid. / The customer has not paid.",
            ),
        ),
    ),
)

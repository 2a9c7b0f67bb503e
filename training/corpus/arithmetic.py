"""Arithmetic of one digit in full, a bit of two digits, word problems, comparisons."""

from __future__ import annotations

import json
import random

from training.corpus.conversation import Split
from training.corpus.pools import FIRST
from training.corpus.wording import Exchange, decorate, fill, instance, wordings

NUMBER_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SIGN = {"+": ("+",), "-": ("-",), "×": ("×", "x", "*")}
_SAID = {"+": "plus", "-": "minus", "×": "times"}

_GENERAL = wordings(
    """What is {e}?
    What's {e}?
    How much is {e}?
    [Compute|Calculate|Solve|Work out] {e}.
    [Compute|Calculate|Solve]: {e}
    {e}
    {e} =
    {e} = ?
    {e}?
    {e} is what?
    {e} equals what?
    What does {e} make?
    What does {e} equal?
    What do you get for {e}?
    What is the result of {e}?
    [Tell me|Give me] the result of {e}.
    [Tell me|Say] what {e} is.
    Can you [compute|calculate|solve] {e}?
    Do you know what {e} is?
    What number is {e}?
    The result of {e} is[ ...|]?
    If I compute {e}, what do I get?""",
    """How much does {e} make?
    What is the answer to {e}?
    Can you tell me what {e} is?
    I need the result of {e}.
    Please work out what {e} is.
    What is the value of {e}?""",
)
_OWN = {
    "+": wordings(
        """Add {a} and {b}.
        [What is|Compute|Calculate|Tell me|Give me] the sum of {a} and {b}[.|]
        Add {b} to {a}.
        What do you get if you add {b} to {a}?
        What do you get when you add {a} and {b}?
        How much is {a} and {b} together?
        What is {b} more than {a}?
        What is {a} and {b} together?""",
        """If you add {a} and {b}, what do you get?
        How much is the sum of {a} and {b}?
        Add the numbers {a} and {b}.""",
    ),
    "-": wordings(
        """Subtract {b} from {a}.
        Take {b} away from {a}.
        Take {b} from {a}.
        [What is|Compute|Calculate] the difference of {a} and {b}[.|]
        What do you get if you subtract {b} from {a}?
        What do you get when you take {b} from {a}?
        What is {b} less than {a}?
        {b} from {a} is what?
        What is left if you take {b} from {a}?""",
        """If you subtract {b} from {a}, what do you get?
        What is left when you subtract {b} from {a}?
        Tell me what is left if you take {b} from {a}.""",
    ),
    "×": wordings(
        """Multiply {a} by {b}.
        Multiply {a} and {b}.
        [What is|Compute|Calculate|Tell me|Give me] the product of {a} and {b}[.|]
        What do you get if you multiply {a} by {b}?
        What do you get when you multiply {a} and {b}?
        What is {a} multiplied by {b}?
        How much is {a} multiplied by {b}?""",
        """If you multiply {a} by {b}, what do you get?
        How much is the product of {a} and {b}?
        Multiply the numbers {a} and {b}.""",
    ),
}


def value(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b


def _written(rng: random.Random, number: int, words: bool) -> str:
    return NUMBER_WORDS[number] if words and number < len(NUMBER_WORDS) else str(number)


def ask(rng: random.Random, split: Split, a: int, op: str, b: int) -> Exchange:
    """One sum asked in digits or words, in one of the split's wordings."""
    words = rng.random() < 0.25
    left, right = _written(rng, a, words), _written(rng, b, words)
    if rng.random() < 0.7:
        if words or rng.random() < 0.15:
            expression = f"{left} {_SAID[op]} {right}"
        else:
            gap = "" if rng.random() < 0.3 else " "
            expression = f"{left}{gap}{rng.choice(_SIGN[op])}{gap}{right}"
        question = fill(_GENERAL.pick(rng, split), e=expression)
    else:
        question = fill(_OWN[op].pick(rng, split), a=left, b=right)
    result = value(a, op, b)
    question = decorate(rng, question[:1].upper() + question[1:])
    return Exchange(
        "arithmetic", question, f"{a} {op} {b} = {result}.", short=str(result), json=json.dumps({"result": result})
    )


def one_digit(rng: random.Random, split: Split) -> Exchange:
    """Both numbers from 0 to 9 (now and then to 10); a difference is rarely negative."""
    op = rng.choice("++--×××")
    top = 10 if rng.random() < 0.1 else 9
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-" and a < b and rng.random() < 0.8:
        a, b = b, a
    return ask(rng, split, a, op, b)


def two_digits(rng: random.Random, split: Split) -> Exchange:
    """Sums and differences up to a hundred, the result never negative."""

    def pair(r: random.Random) -> tuple[int, str, int]:
        op = r.choice("+-")
        a, b = r.randint(10, 99), r.randint(1, 99)
        if op == "+" and a + b > 100 and r.random() < 0.7:
            b = r.randint(1, 100 - a)
        return (a, op, b) if op == "+" or a >= b else (b, op, a)

    a, op, b = instance(rng, split, pair)
    return ask(rng, split, a, op, b)


_THINGS = (
    "apples books pens cakes eggs balls cards coins flowers toys cups stones fish stickers cookies keys dogs hats"
).split()
_MORE = wordings(
    """{n} has {a} {t} and gets {b} more. How many {t} does {n} have[ now|]?
    {n} has {a} {t}. {m} gives {n} {b} more. How many {t} does {n} have[ now|]?
    {n} buys {a} {t} and then {b} more. How many {t} does {n} have[ now|]?
    There are {a} {t} on the table. {n} adds {b} more. How many {t} are there[ now|]?
    {n} has {a} {t} and {m} has {b} {t}. How many {t} do they have together?
    {n} finds {a} {t} in the morning and {b} in the evening. How many {t} is that?""",
    """{n} has {a} {t} and buys {b} more. How many {t} does {n} have now?
    {n} finds {a} {t} and {m} finds {b} {t}. How many {t} do they have together?""",
)
_LESS = wordings(
    """{n} has {a} {t} and gives {b} away. How many {t} does {n} have[ now| left|]?
    {n} has {a} {t}. {n} gives {b} to {m}. How many {t} are left?
    {n} has {a} {t} and loses {b}. How many {t} are left?
    There are {a} {t} on the table. {n} takes {b}. How many {t} are left?
    {n} buys {a} {t} and sells {b}. How many {t} does {n} have[ now| left|]?
    {n} had {a} {t} and lost {b} of them. How many {t} does {n} have[ now| left|]?""",
    """{n} has {a} {t} and sells {b}. How many {t} does {n} have left?
    There are {a} {t} on the table. {n} takes {b} away. How many {t} are left now?""",
)
_TIMES = wordings(
    """{n} has {a} bags with {b} {t} each. How many {t} does {n} have?
    There are {a} boxes with {b} {t} in each box. How many {t} are there?
    {n} buys {b} {t} every day for {a} days. How many {t} does {n} have?
    There are {b} {t} in one box. How many {t} are in {a} boxes?
    {a} children have {b} {t} each. How many {t} do they have together?""",
    """There are {a} bags with {b} {t} in each bag. How many {t} are there?
    {n} has {a} boxes with {b} {t} each. How many {t} does {n} have?""",
)


def word_problem(rng: random.Random, split: Split) -> Exchange:
    """A small story with a question; the answer shows the sum, then the number with its thing."""
    op = rng.choice("++--×")
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    if op == "-" and a < b:
        a, b = b, a
    person, other = rng.sample(FIRST, 2)
    thing = rng.choice(_THINGS)
    text = {"+": _MORE, "-": _LESS, "×": _TIMES}[op].pick(rng, split)
    words = rng.random() < 0.3
    question = fill(text, n=person, m=other, t=thing, a=_written(rng, a, words), b=_written(rng, b, words))
    result = value(a, op, b)
    counted = thing.removesuffix("s") if result == 1 else thing
    answer = f"{a} {op} {b} = {result}. The answer is {result} {counted}."
    question = question[:1].upper() + question[1:]
    return Exchange("arithmetic", question, answer, short=str(result), json=json.dumps({"result": result}))


_LARGER = wordings(
    """Which is larger, {a} or {b}?
    Which number is larger: {a} or {b}?
    What is more, {a} or {b}?
    Which number is bigger, {a} or {b}?
    Is {a} or {b} larger?
    {a} or {b}: which is larger?
    Compare {a} and {b}: which is larger?""",
    """Which is bigger, {a} or {b}?
    {a} or {b}: which number is larger?""",
)
_EVEN = wordings(
    """Is {a} even or odd?
    Is {a} an even or an odd number?
    Is the number {a} even or odd?
    {a}: even or odd?
    Is {a} odd or even?
    Tell me if {a} is even or odd.""",
    """Is the number {a} odd or even?
    {a}: odd or even?""",
)


def comparison(rng: random.Random, split: Split) -> Exchange:
    """The larger of two numbers, or even and odd."""
    if rng.random() < 0.6:
        top = rng.choice((9, 99))
        a, b = instance(rng, split, lambda r: tuple(r.sample(range(top + 1), 2)))
        question, answer = fill(_LARGER.pick(rng, split), a=a, b=b), f"{max(a, b)} is larger than {min(a, b)}."
        return Exchange("arithmetic", decorate(rng, question), answer, short=str(max(a, b)))
    number = rng.randint(0, 20)
    word = "odd" if number % 2 else "even"
    return Exchange(
        "arithmetic",
        decorate(rng, fill(_EVEN.pick(rng, split), a=number)),
        f"{number} is {word}.",
        short=cap_word(word),
    )


def cap_word(word: str) -> str:
    return word.capitalize()


MAKERS = ((one_digit, 0.6), (two_digits, 0.12), (word_problem, 0.18), (comparison, 0.1))

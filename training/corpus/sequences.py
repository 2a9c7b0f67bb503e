"""Counting, sorting and spelling."""

from __future__ import annotations

import random

from training.corpus import pools as p
from training.corpus.arithmetic import NUMBER_WORDS
from training.corpus.conversation import Split
from training.corpus.wording import Exchange, decorate, fill, instance, wordings

_COUNT = wordings(
    """Count from {a} to {b}.
    Count [up |]from {a} to {b}, please.
    Please count from {a} to {b}.
    Write the numbers from {a} to {b}.
    [List|Give me|Say] the numbers from {a} to {b}.
    List all numbers from {a} to {b}.
    Can you count from {a} to {b}?
    Which numbers come from {a} to {b}?
    Start at {a} and count to {b}.
    Numbers from {a} to {b}?""",
    """Can you list the numbers from {a} to {b}?
    Write all numbers from {a} to {b}.
    Start at {a} and count up to {b}.""",
)
_DOWN = wordings(
    """Count down from {a} to {b}.
    Count backwards from {a} to {b}.
    Please count down from {a} to {b}.
    Count back from {a} to {b}.
    Write the numbers from {a} down to {b}.
    List the numbers from {a} down to {b}.
    Can you count down from {a} to {b}?""",
    """Can you count backwards from {a} to {b}?
    Start at {a} and count down to {b}.""",
)
_NEXT = wordings(
    """What number comes after {a}?
    Which number comes after {a}?
    What is the number after {a}?
    Name the number after {a}.
    Which number follows {a}?
    {a}, and then which number?
    What is the next number after {a}?
    Tell me the next number after {a}.""",
    """Tell me which number comes after {a}.
    What number follows {a}?""",
)
_WORD = wordings(
    """Write {a} as a word.
    Write {a} in words.
    How do you write {a} in words?
    What is {a} in words?
    Write the number {a} as a word.
    Spell the number {a}.""",
    """How do you write the number {a} as a word?
    Tell me {a} in words.""",
)
_HOW_MANY = wordings(
    """How many words are there: {l}?
    Count the words: {l}
    Count these words: {l}
    How many words are in this list: {l}?
    How many things are in this list: {l}?
    How many items are there in {l}?
    Count the items: {l}""",
    """Count the things in this list: {l}
    How many words do you count: {l}?""",
)


def counting(rng: random.Random, split: Split) -> Exchange:
    """Runs of numbers, the next number, a number as a word, how many words."""
    roll = rng.random()
    if roll < 0.3:
        low, high = instance(
            rng, split, lambda r: (lambda a: (a, a + r.randint(3, 11)))(r.choice((1, 1, 0, 2, r.randint(1, 90))))
        )
        answer = ", ".join(map(str, range(low, high + 1)))
        return Exchange("counting", decorate(rng, fill(_COUNT.pick(rng, split), a=low, b=high)), answer)
    if roll < 0.5:
        low, high = instance(
            rng, split, lambda r: (lambda a: (a, a + r.randint(3, 10)))(r.choice((1, 1, 0, r.randint(1, 30))))
        )
        answer = ", ".join(map(str, range(high, low - 1, -1)))
        return Exchange("counting", decorate(rng, fill(_DOWN.pick(rng, split), a=high, b=low)), answer)
    if roll < 0.7:
        number = rng.randint(0, 99)
        return Exchange(
            "counting", decorate(rng, fill(_NEXT.pick(rng, split), a=number)), f"{number + 1} comes after {number}."
        )
    if roll < 0.8:
        number = rng.randint(0, 12)
        question = decorate(rng, fill(_WORD.pick(rng, split), a=number))
        return Exchange("counting", question, f"{number} is written {NUMBER_WORDS[number]}.")
    words = instance(rng, split, lambda r: r.sample(p.WORDS, r.randint(2, 7)))
    question = fill(_HOW_MANY.pick(rng, split), l=", ".join(words))
    listed = ", ".join(f"{i} {w}" for i, w in enumerate(words, 1))
    return Exchange("counting", question, f"{listed}. There are {len(words)}.")


_SORT_NUMBERS = wordings(
    """Sort these numbers: {l}
    Sort the numbers {l}.
    Put these numbers in order: {l}
    Put the numbers in order: {l}
    Sort: {l}
    Order these numbers from small to large: {l}
    Sort these numbers from smallest to largest: {l}
    Please sort {l}.
    Arrange the numbers {l} in order.
    Write these numbers in order: {l}
    Can you sort these numbers? {l}
    Sort in ascending order: {l}""",
    """Put {l} in order from small to large.
    Can you put these numbers in order? {l}
    Please sort these numbers in ascending order: {l}""",
)
_SORT_DOWN = wordings(
    """Sort these numbers from largest to smallest: {l}
    Sort in descending order: {l}
    Sort the numbers {l} in descending order.
    Order these numbers from large to small: {l}
    Put these numbers in descending order: {l}
    Sort backwards: {l}""",
    """Put {l} in order from large to small.
    Please sort these numbers in descending order: {l}""",
)
_SORT_WORDS = wordings(
    """Sort these words: {l}
    Sort the words {l}.
    Sort these words alphabetically: {l}
    Put these words in alphabetical order: {l}
    Put the words {l} in order.
    Order these words from A to Z: {l}
    Sort these words from A to Z: {l}
    Alphabetical order, please: {l}
    Can you sort these words? {l}
    Write these words in alphabetical order: {l}""",
    """Order these words alphabetically: {l}
    Can you put these words in alphabetical order? {l}""",
)


def sorting(rng: random.Random, split: Split) -> Exchange:
    """Three to six numbers up or down, or words of different first letters."""
    if rng.random() < 0.35:

        def make(r: random.Random) -> list[str]:
            words = r.sample(p.WORDS, r.randint(2, 5))
            return words if len({w[0] for w in words}) == len(words) else make(r)

        words = instance(rng, split, make)
        question = fill(_SORT_WORDS.pick(rng, split), l=", ".join(words))
        return Exchange("sorting", question, ", ".join(sorted(words)))
    numbers = instance(rng, split, lambda r: r.sample(range(r.choice((10, 10, 100))), r.randint(3, 6)))
    down = rng.random() < 0.25
    question = fill((_SORT_DOWN if down else _SORT_NUMBERS).pick(rng, split), l=", ".join(map(str, numbers)))
    return Exchange("sorting", question, ", ".join(map(str, sorted(numbers, reverse=down))))


_SPELL = wordings(
    """Spell [the word |]{w}.
    Spell [the word |]"{w}".
    How do you spell {w}?
    How do you spell "{w}"?
    How is "{w}" spelled?
    Can you spell "{w}"?
    Please spell {w} for me.
    Write the letters of {w}.
    What are the letters of "{w}"?
    Which letters are in the word {w}?
    Give me the letters of {w}.
    Spell it out: {w}""",
    """Can you tell me how to spell {w}?
    Tell me the letters of the word {w}.
    How is the word {w} spelled?""",
)
_FIRST = wordings(
    """What is the {o} letter of [{w}|"{w}"]?
    Which letter is the {o} letter of [{w}|"{w}"]?
    What is the {o} letter of the word [{w}|"{w}"]?
    Name the {o} letter of {w}.
    Tell me the {o} letter of "{w}".
    {o} letter of {w}?
    Which is the {o} letter in {w}?
    Give me the {o} letter of {w}.""",
    """What is the {o} letter in the word "{w}"?
    Do you know the {o} letter of {w}?""",
)
_LENGTH = wordings(
    """How many letters does [{w}|"{w}"] have?
    How many letters are [there |]in [{w}|"{w}"]?
    How many letters has the word {w} got?
    How many letters does the word [{w}|"{w}"] have?
    Count the letters of "{w}".
    Count the letters in {w}.
    How long is the word {w}?
    Number of letters in {w}?
    What is the length of the word {w}?""",
    """Count the letters in the word "{w}".
    Tell me how many letters {w} has.""",
)


def spelling(rng: random.Random, split: Split) -> Exchange:
    """The letters of a word, its first or last letter, how many letters."""
    word = instance(rng, split, lambda r: r.choice(p.WORDS) if r.random() < 0.85 else p.invented(r))
    spelled = "-".join(word.upper())
    roll = rng.random()
    if roll < 0.5:
        return Exchange(
            "spelling", decorate(rng, fill(_SPELL.pick(rng, split), w=word)), f"{word} is spelled {spelled}."
        )
    if roll < 0.8:
        place = rng.choice(("first", "last"))
        letter = word[0 if place == "first" else -1].upper()
        question = fill(_FIRST.pick(rng, split), w=word, o=place)
        return Exchange(
            "spelling", decorate(rng, question[:1].upper() + question[1:]), f"The {place} letter of {word} is {letter}."
        )
    question = decorate(rng, fill(_LENGTH.pick(rng, split), w=word))
    counted = ", ".join(f"{i} {c}" for i, c in enumerate(word.upper(), 1))
    return Exchange("spelling", question, f"{counted}. The word {word} has {len(word)} letters.")


MAKERS = ((counting, 0.34), (sorting, 0.33), (spelling, 0.33))

"""A little Python: tiny functions, asked for in many ways."""

from __future__ import annotations

import random

from training.corpus.conversation import Split
from training.corpus.wording import Exchange, decorate, fill, wordings

_FUNCTIONS = (
    ("add", "a, b", "return a + b", "adds two numbers"),
    ("subtract", "a, b", "return a - b", "subtracts two numbers"),
    ("multiply", "a, b", "return a * b", "multiplies two numbers"),
    ("divide", "a, b", "return a / b", "divides two numbers"),
    ("square", "x", "return x * x", "squares a number"),
    ("double", "x", "return 2 * x", "doubles a number"),
    ("is_even", "n", "return n % 2 == 0", "checks if a number is even"),
    ("is_odd", "n", "return n % 2 == 1", "checks if a number is odd"),
    ("is_positive", "n", "return n > 0", "checks if a number is positive"),
    ("largest", "a, b", "return max(a, b)", "returns the larger of two numbers"),
    ("smallest", "a, b", "return min(a, b)", "returns the smaller of two numbers"),
    ("total", "numbers", "return sum(numbers)", "sums a list of numbers"),
    ("average", "numbers", "return sum(numbers) / len(numbers)", "computes the average of a list"),
    ("reverse", "text", "return text[::-1]", "reverses a string"),
    ("length", "text", "return len(text)", "returns the length of a string"),
    ("upper", "text", "return text.upper()", "makes a string upper case"),
    ("lower", "text", "return text.lower()", "makes a string lower case"),
    ("first", "items", "return items[0]", "returns the first item of a list"),
    ("last", "items", "return items[-1]", "returns the last item of a list"),
    ("count_words", "text", "return len(text.split())", "counts the words of a string"),
    ("sort_list", "items", "return sorted(items)", "sorts a list"),
    ("greet", "name", 'return "Hello, " + name + "!"', "greets a person by name"),
    ("factorial", "n", "return 1 if n == 0 else n * factorial(n - 1)", "computes the factorial of a number"),
    ("count_to", "n", "return list(range(1, n + 1))", "returns a list of the numbers from 1 to n"),
)
_ASK = wordings(
    """Write a Python function that {d}.
    Write a function that {d}.
    Write a function in Python that {d}.
    Write Python code that {d}.
    Give me a Python function that {d}.
    Give me a function in Python that {d}.
    I need a Python function that {d}.
    Can you write a Python function that {d}?
    Show me a Python function that {d}.
    Python function that {d}?
    Make a Python function that {d}.
    Please write a small function that {d}.""",
    """Can you show me a function in Python that {d}?
    I need Python code that {d}.
    Please write a Python function that {d}.""",
)


def function(rng: random.Random, split: Split) -> Exchange:
    name, arguments, body, does = rng.choice(_FUNCTIONS)
    answer = f"```python\ndef {name}({arguments}):\n    {body}\n```"
    return Exchange("python", decorate(rng, fill(_ASK.pick(rng, split), d=does)), answer)


MAKERS = ((function, 1.0),)

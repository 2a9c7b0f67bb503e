"""The held-out questions and how an answer is checked.

``python -m training.questions`` writes ``tests/bundled/questions.json``.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training.corpus import arithmetic, facts, mixture, sequences, smalltalk, text_tasks, thinking
from training.corpus.conversation import Message
from training.corpus.mixture import Maker
from training.corpus.names import meeting
from training.corpus.tool_calls import tool_question
from training.corpus.wording import Exchange

PATH = Path(__file__).parent.parent / "tests/bundled/questions.json"
SEED = 20_240
Check = dict[str, Any]
Question = dict[str, Any]
_TAGS = re.compile(r"</?tool_call>")


def passes(check: Check, answer: str) -> bool:
    """Whether an answer is right. ``contains``: the words as a whole; ``equals``: nothing else, but for spaces at the
    ends; ``number``: the last number said; ``json``: the same object; ``tool``: a call of that name and arguments.
    """
    answer = answer.rsplit("</think>", 1)[-1].strip()
    (kind, expected), *_ = check.items()
    if kind == "contains":
        return re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", answer, re.IGNORECASE) is not None
    if kind == "equals":
        return answer == str(expected)
    if kind == "number":
        numbers = re.findall(r"(?<![\w.])-?\d+", answer)
        return bool(numbers) and int(numbers[-1]) == expected
    if kind in ("json", "tool"):
        return _canonical(_parsed(_TAGS.sub("", answer))) == _canonical(expected)
    raise ValueError(f"unknown kind of check: {kind!r}")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _canonical(value: Any) -> str:
    """Text that is the same for the same JSON value; unlike ``==`` it tells ``true`` from ``1``."""
    return json.dumps(value, sort_keys=True)


def _entry(kind: str, messages: Sequence[Message], check: Check) -> Question:
    """A question: all messages but the answer."""
    return {"kind": kind, "messages": list(messages[:-1]), "check": check, "reference": messages[-1]["content"]}


def _plain(kind: str, found: Exchange, check: Check) -> Question:
    return _entry(kind, found.rendered(), check)


def _key_answer(found: Exchange) -> str:
    """The part of a fact's sentence that must be there: its short form."""
    return found.short if found.short is not None else found.answer


def _facts(rng: random.Random) -> Question:
    while True:
        found = facts.fact(rng, "heldout")
        check = {"contains": _key_answer(found)}
        if not passes(check, found.question):  # "What is the colour of an orange?" already holds its answer
            return _plain("facts", found, check)


def _json(rng: random.Random) -> Question:
    found = mixture.make(rng, "heldout", "json")
    return _plain("json", found, {"json": json.loads(found.answer)})


def _number(kind: str, make: Maker) -> Callable[[random.Random], Question]:
    def ask(rng: random.Random) -> Question:
        found = make(rng, "heldout")
        return _plain(kind, found, {"number": int(str(found.short))})

    return ask


def _short(rng: random.Random) -> Question:
    messages = mixture.in_short(rng, "heldout", suffix=True)
    return _entry("short", messages, {"equals": messages[-1]["content"]})


def _answer_json(rng: random.Random) -> Question:
    messages = mixture.in_json(rng, "heldout")
    return _entry("answer_json", messages, {"json": json.loads(messages[-1]["content"])})


def _several_turns(rng: random.Random) -> Question:
    """A question after others, or a name told earlier."""
    if rng.random() < 0.4:
        met, recalled = meeting(rng, "heldout")
        messages = (*met.rendered(), *facts.fact(rng, "heldout").rendered(), *recalled.rendered())
        return _entry("several_turns", messages, {"equals": recalled.answer})
    series = facts.fact_series(rng, "heldout")
    return _entry("several_turns", series.rendered(), {"equals": series.answer})


def _tools(rng: random.Random) -> Question:
    found = tool_question(rng, "heldout")
    entry = _plain("tools", found, {"tool": json.loads(found.answer)})
    return {**entry, "tools": list(found.tools)}


def _think(rng: random.Random) -> Question:
    found = mixture.make_thought(rng, "heldout")
    asked: Message = {"role": "user", "content": mixture.ending(found.question) + rng.choice(thinking.CUES)}
    return _entry("think", (asked, {"role": "assistant", "content": found.answer}), {"equals": found.answer})


def _exactly(kind: str, make: Maker) -> Callable[[random.Random], Question]:
    """Questions whose whole answer is checked."""

    def ask(rng: random.Random) -> Question:
        found = make(rng, "heldout")
        return _plain(kind, found, {"equals": found.answer})

    return ask


def _of(group: str) -> Maker:
    return lambda rng, split: mixture.make(rng, split, group)


# For each kind: how many questions, and what makes one.
KINDS: dict[str, tuple[int, Callable[[random.Random], Question]]] = {
    "facts": (100, _facts),
    "json": (100, _json),
    "arithmetic": (100, _number("arithmetic", arithmetic.one_digit)),
    "word_problems": (40, _number("word_problems", arithmetic.word_problem)),
    "two_digits": (40, _number("two_digits", arithmetic.two_digits)),
    "short": (40, _short),
    "answer_json": (40, _answer_json),
    "several_turns": (40, _several_turns),
    "tools": (40, _tools),
    "think": (40, _think),
    "counting": (40, _exactly("counting", sequences.counting)),
    "sorting": (40, _exactly("sorting", sequences.sorting)),
    "spelling": (40, _exactly("spelling", sequences.spelling)),
    "repeat": (40, _exactly("repeat", text_tasks.repeat)),
    "rewrite": (40, _exactly("rewrite", _of("rewrite"))),
    "smalltalk": (40, _exactly("smalltalk", smalltalk.talk)),
    "python": (40, _exactly("python", _of("python"))),
}


def questions(seed: int = SEED) -> list[Question]:
    """All questions, each once."""
    rng = random.Random(f"questions:{seed}")
    found: list[Question] = []
    for count, ask in KINDS.values():
        seen: set[str] = set()
        for _ in range(count * 40):
            if len(seen) == count:
                break
            entry = ask(rng)
            text = json.dumps(entry["messages"])
            if text not in seen:
                seen.add(text)
                found.append(entry)
    return found


def main() -> int:
    PATH.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in questions())
    PATH.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Accuracy by kind on the held-out questions: ``python -m training.evaluate DIR`` (a run's directory, or a served model
with ``--url``).
"""

import argparse
import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from training import tokenizer
from training.checkpoint import load_weights
from training.corpus.conversation import Conversation
from training.generate import greedy
from training.model import SHAPES, Model
from training.questions import passes

QUESTIONS = Path(__file__).parent.parent / "tests/bundled/questions.json"
AT_ONCE = 16
"""Requests to a server."""
Question = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, what the model said, and whether that is right."""

    question: Question
    answer: str
    right: bool


def ask_weights(directory: Path, shape: str, questions: list[Question], batch: int = 32) -> list[str]:
    """Answers of a run's checkpoint, in the order of the questions."""
    model = Model(SHAPES[shape]).eval()
    load_weights(directory, model)
    words = tokenizer.load(directory)
    talks = [Conversation(q["kind"], tuple(q["messages"]), tuple(q.get("tools", ()))) for q in questions]
    texts = [tokenizer.render(words, talk, add_generation_prompt=True) for talk in talks]
    prompts = [words.encode(text, add_special_tokens=False) for text in texts]
    answers = [""] * len(questions)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        for index, ids in zip(chosen, greedy(model, [prompts[i] for i in chosen]), strict=True):
            answers[index] = str(words.decode(ids))
    return answers


def ask_server(url: str, name: str, questions: list[Question]) -> list[str]:
    """Answers of the model `name` at an OpenAI-compatible server, as the model wrote them."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(_post, url, name), questions))


def _post(url: str, name: str, question: Question) -> str:
    body = {"model": name, "messages": question["messages"], "temperature": 0, "max_tokens": 128}
    if question.get("tools"):
        body["tools"] = question["tools"]
    request = urllib.request.Request(  # noqa: S310
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        said: str = json.load(answer)["choices"][0]["message"]["content"]
    return said


def judge(questions: list[Question], answers: Iterable[str]) -> list[Answered]:
    return [Answered(q, a, passes(q["check"], a)) for q, a in zip(questions, answers, strict=True)]


def by_kind(answered: list[Answered]) -> dict[str, tuple[int, int]]:
    """Right answers and questions, by kind."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for item in answered:
        counts[item.question["kind"]].append(item.right)
    return {kind: (sum(right), len(right)) for kind, right in sorted(counts.items())}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", help="of a run")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--url", help="ask a server instead, such as http://127.0.0.1:8000")
    parser.add_argument("--name", default="radixmesh-tiny", help="of the model there")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    parser.add_argument("--kinds", nargs="*", help="only these")
    parser.add_argument("--limit", type=int, help="questions of each kind")
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers of each kind")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    questions = chosen(json.loads(flags.questions.read_text(encoding="utf-8")), flags.kinds, flags.limit)
    if flags.url:
        answers = ask_server(flags.url, flags.name, questions)
    elif flags.directory:
        answers = ask_weights(flags.directory, flags.shape, questions)
    else:
        parser.error("give a directory or --url")
    answered = judge(questions, answers)
    for kind, (right, count) in by_kind(answered).items():
        print(f"{kind:12} {right:4} of {count:4}  {right / count:.1%}")
        wrong = [item for item in answered if item.question["kind"] == kind and not item.right]
        for item in wrong[: flags.wrong]:
            asked = item.question["messages"][-1]["content"]
            print(f"    {asked!r} -> {item.answer!r}, expected {item.question['check']}")


def chosen(questions: list[Question], kinds: list[str] | None, limit: int | None) -> list[Question]:
    """Those of the kinds, the first `limit` of each."""
    found: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if not kinds or question["kind"] in kinds:
            found[question["kind"]].append(question)
    return [question for group in found.values() for question in group[:limit]]


if __name__ == "__main__":
    main()

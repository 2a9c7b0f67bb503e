"""The corpus: the same by seed, well formed, right, and with nothing held out in the training split."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.corpus import (
    arithmetic,
    extraction,
    fact_relations,
    facts,
    names,
    python_code,
    sequences,
    smalltalk,
    stories,
    text_tasks,
    thinking,
    tool_invented,
    tool_specs,
)
from training.corpus.conversation import Conversation, Split, conversations
from training.corpus.single_facts import SINGLE_FACTS
from training.corpus.wording import Wordings, expansions

ROOT = Path(__file__).parents[2]
KINDS = {
    *("facts", "arithmetic", "json", "tools", "think", "short", "counting", "sorting", "spelling"),
    *("rewrite", "smalltalk", "stories", "python", "mixed"),
}


@pytest.fixture(scope="module")
def train() -> list[Conversation]:
    return list(itertools.islice(conversations(3, "train"), 8000))


@pytest.fixture(scope="module")
def heldout() -> list[Conversation]:
    return list(itertools.islice(conversations(3, "heldout"), 2000))


def answers(found: list[Conversation]) -> Iterator[str]:
    return (m["content"] for c in found for m in c.messages if m["role"] == "assistant")


def questions(found: list[Conversation]) -> Iterator[str]:
    return (m["content"] for c in found for m in c.messages if m["role"] == "user")


def all_wordings() -> Iterator[tuple[str, Wordings]]:
    modules = (
        arithmetic, extraction, facts, names, python_code, sequences,
        smalltalk, stories, text_tasks, thinking, tool_invented,
    )  # fmt: skip
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Wordings):
                yield f"{module.__name__}.{name}", value
            elif isinstance(value, dict):
                yield from ((f"{name} {key}", w) for key, w in value.items() if isinstance(w, Wordings))
    yield from ((relation.name, relation.wordings) for relation in fact_relations.RELATIONS)
    yield from ((tool.name, tool.asked) for tool in tool_specs.FIXED)
    yield from ((answer, asked) for _, answer, asked in smalltalk.TALK)
    yield from ((fact.answer, Wordings(fact.train, fact.heldout)) for fact in SINGLE_FACTS)


def plain(text: str) -> str:
    """What decoration can change, removed."""
    return text.lower().replace('"', "").rstrip("?.!:= ")


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_same_seed_gives_the_same_conversations_and_another_seed_others(split: Split) -> None:
    first = list(itertools.islice(conversations(5, split), 200))
    assert first == list(itertools.islice(conversations(5, split), 200))
    assert first != list(itertools.islice(conversations(6, split), 200))


def test_the_stream_does_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, itertools\n"
        "from training.corpus.conversation import conversations\n"
        "found = repr(list(itertools.islice(conversations(5, 'train'), 500)))\n"
        "print(hashlib.sha256(found.encode()).hexdigest())\n"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_every_kind_occurs(train: list[Conversation], heldout: list[Conversation]) -> None:
    assert {c.kind for c in train} == KINDS
    assert {c.kind for c in heldout} == KINDS


@pytest.mark.parametrize(("name", "found"), list(all_wordings()))
def test_no_heldout_wording_is_one_of_training(name: str, found: Wordings) -> None:
    trained = {plain(text) for template in found.train for text in expansions(template)}
    held = {plain(text) for template in found.heldout for text in expansions(template)}
    assert len(trained) >= 4, name
    assert held, name
    assert not trained & held


def test_no_heldout_question_occurs_in_training(train: list[Conversation], heldout: list[Conversation]) -> None:
    shared = {plain(q) for q in questions(train)} & {plain(q) for q in questions(heldout)}
    assert not shared


def test_roles_follow_one_another(train: list[Conversation]) -> None:
    turns = {"system": {"user"}, "user": {"assistant"}, "assistant": {"user", "tool"}, "tool": {"assistant"}}
    for conversation in train:
        roles = [m["role"] for m in conversation.messages]
        assert roles[0] in ("system", "user")
        assert roles[-1] == "assistant"
        assert all(after in turns[before] for before, after in itertools.pairwise(roles)), roles


def test_nothing_is_empty_and_no_slot_is_left(train: list[Conversation], heldout: list[Conversation]) -> None:
    for conversation in (*train, *heldout):
        for message in conversation.messages:
            assert message["content"].strip() == message["content"]
            assert message["content"] or message.get("tool_calls")
            assert not re.search(r"\{\w+\}", message["content"]), message
            assert "[" not in message["content"] or message["role"] == "assistant", message


def test_every_answer_that_looks_like_json_is_an_object_with_all_keys_asked_for(train: list[Conversation]) -> None:
    seen = 0
    for conversation in train:
        for asked, reply in itertools.pairwise(conversation.messages):
            if reply["role"] == "assistant" and reply["content"].startswith("{"):
                found = json.loads(reply["content"])
                assert isinstance(found, dict)
                assert all(key.lower() in asked["content"].lower() for key in found), (asked, found)
                seen += 1
    assert seen > 500


def test_every_sum_is_right(train: list[Conversation], heldout: list[Conversation]) -> None:
    seen = 0
    for answer in answers([*train, *heldout]):
        for a, op, b, result in re.findall(r"(-?\d+) ([-+×*]) (\d+) = (-?\d+)", answer):
            expected = {"+": int(a) + int(b), "-": int(a) - int(b)}.get(op, int(a) * int(b))
            assert int(result) == expected, answer
            seen += 1
    assert seen > 1000


def test_tool_calls_fit_the_tools(train: list[Conversation]) -> None:
    seen = 0
    for conversation in train:
        schemas = {t["function"]["name"]: t["function"]["parameters"] for t in conversation.tools}
        for message in conversation.messages:
            for call in message.get("tool_calls", ()):
                schema = schemas[call["function"]["name"]]
                assert set(call["function"]["arguments"]) == set(schema["required"]) == set(schema["properties"])
                for name, value in call["function"]["arguments"].items():
                    assert schema["properties"][name]["type"] == ("integer" if isinstance(value, int) else "string")
                seen += 1
    assert seen > 100


def test_reasoning_stands_before_the_last_answer_only(train: list[Conversation]) -> None:
    thought = [c for c in train if c.kind == "think"]
    assert thought
    assert all(c.messages[-1]["reasoning_content"] for c in thought)
    assert not any("reasoning_content" in m for c in train for m in c.messages[:-1])


def test_a_name_told_is_the_name_recalled(train: list[Conversation]) -> None:
    seen = 0
    for conversation in train:
        told = None
        for answer in answers([conversation]):
            if met := re.fullmatch(r"Nice to meet you, (\w+)!", answer):
                told = met.group(1)
            if recalled := re.fullmatch(r"Your name is (\w+)\.", answer):
                assert recalled.group(1) == told
                seen += 1
    assert seen > 20

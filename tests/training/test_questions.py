"""The questions of the quality gate: the file is what the script writes, and the checks tell right from wrong."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from training.questions import KINDS, PATH, passes, questions


@pytest.fixture(scope="module")
def written() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def test_the_file_is_what_the_script_writes(written: list[dict[str, Any]]) -> None:
    assert json.loads(json.dumps(questions())) == written


def test_there_are_as_many_of_each_kind_as_promised_and_none_twice(written: list[dict[str, Any]]) -> None:
    assert Counter(q["kind"] for q in written) == {kind: count for kind, (count, _) in KINDS.items()}
    for kind in KINDS:
        asked = [json.dumps(q["messages"]) for q in written if q["kind"] == kind]
        assert len(set(asked)) == len(asked)


def test_references_pass_and_the_question_itself_does_not(written: list[dict[str, Any]]) -> None:
    for question in written:
        assert passes(question["check"], question["reference"]), question
        assert not passes(question["check"], ""), question
    for question in (q for q in written if q["kind"] == "facts"):
        assert not passes(question["check"], question["messages"][-1]["content"]), question


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"contains": "Paris"}, "It is Paris.", "It is Parish."),
        ({"contains": "four"}, "A dog has FOUR legs.", "A dog has fourteen legs."),
        ({"equals": "1, 2, 3"}, " 1, 2, 3\n", "1, 2, 3, 4"),
        ({"equals": "7"}, "<think>\n3 + 4\n</think>\n\n7", "The answer is 7"),
        ({"number": 7}, "3 + 4 = 7.", "7 + 4 = 11."),
        ({"number": -2}, "3 - 5 = -2.", "3 - 5 = 2."),
        ({"number": 12}, "4 × 3 = 12. The answer is 12 apples.", "no idea"),
        ({"json": {"a": 1, "b": None}}, '{"b": null, "a": 1}', '{"a": 1}'),
        ({"json": {"a": True}}, '{"a": true}', '{"a": 1}'),
        ({"json": {"a": 1}}, '{"a": 1}', 'Here it is: {"a": 1}'),
        (
            {"tool": {"name": "f", "arguments": {"x": 1}}},
            '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>',
            '<tool_call>\n{"name": "f", "arguments": {"x": 2}}\n</tool_call>',
        ),
    ],
)
def test_checks_tell_right_from_wrong(check: dict[str, Any], right: str, wrong: str) -> None:
    assert passes(check, right)
    assert not passes(check, wrong)


def test_an_unknown_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of check: 'rhymes'"):
        passes({"rhymes": "x"}, "y")

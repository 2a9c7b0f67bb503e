"""The bundled model through a whole mesh: it must answer with sense, questions it has never seen in these words."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serving import ServeProcess
from training.evaluate import Answered, by_kind, judge

QUESTIONS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("questions.json").read_text(encoding="utf-8"))
README = Path(__file__).parents[2] / "README.md"
GATES = {"facts": 0.95, "arithmetic": 0.95, "json": 0.95}
"""Shares of right answers, at least."""
AT_ONCE = 16


@pytest.fixture(scope="module")
def mesh() -> Iterator[ServeProcess]:
    """What `radixmesh serve` without a model serves."""
    with ServeProcess("--max-model-len", "1024", "--max-slots", str(AT_ONCE)) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def client(mesh: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=120, max_retries=0) as client:
        yield client


async def ask(url: str, questions: list[dict[str, Any]]) -> list[str]:
    """Greedy answers, `AT_ONCE` questions at a time."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0) as client:

        async def one(question: dict[str, Any]) -> str:
            async with gate:
                answer = await client.chat.completions.create(
                    model="radixmesh-tiny", messages=question["messages"], temperature=0, max_tokens=128
                )
            return answer.choices[0].message.content or ""

        return await asyncio.gather(*map(one, questions))


def say(client: openai.OpenAI, *messages: str, **options: Any) -> Any:
    """The greedy answer's choice; `messages` are the user's and the assistant's by turns."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(messages)]
    options = {"max_tokens": 64, "temperature": 0, **options}
    return client.chat.completions.create(model="radixmesh-tiny", messages=turns, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", GATES)
async def test_new_wordings_are_answered_right(mesh: ServeProcess, kind: str) -> None:
    questions = [question for question in QUESTIONS if question["kind"] == kind]
    answered = judge(questions, await ask(mesh.url, questions))
    right, count = by_kind(answered)[kind]
    assert count >= 100
    assert right >= GATES[kind] * count, report(answered)


def report(answered: list[Answered]) -> str:
    wrong = [item for item in answered if not item.right]
    lines = [f"{item.question['messages'][-1]['content']!r} -> {item.answer!r}" for item in wrong]
    return "\n".join([f"{len(wrong)} of {len(answered)} are wrong:", *lines])


def test_the_first_example_of_the_readme(client: openai.OpenAI) -> None:
    example = README.read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    (asked,) = re.findall(r'"content": "([^"]+)"', example)
    answer = say(client, asked).choices[0]
    assert answer.finish_reason == "stop"
    assert f"\n    {answer.message.content}\n" in README.read_text(encoding="utf-8")
    assert "Paris" in answer.message.content


def test_it_says_what_it_is(client: openai.OpenAI) -> None:
    assert "RadixMesh Tiny" in say(client, "Who are you?").choices[0].message.content


def test_a_stop_string_ends_the_answer_where_it_begins(client: openai.OpenAI) -> None:
    whole = say(client, "What is the capital of France?").choices[0].message.content
    assert whole == "The capital of France is Paris."
    # The last two begin inside a token, and the second reaches into the next.
    cuts = {" is": "The capital of France", "tal of Fra": "The capi", "is.": "The capital of France is Par"}
    for stop, left in cuts.items():
        answer = say(client, "What is the capital of France?", stop=[stop]).choices[0]
        assert (answer.message.content, answer.finish_reason) == (left, "stop")


def test_a_stream_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    # Long enough for many plans: what came of one, and what a busy gateway finds waiting, goes out as one piece.
    long = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
    whole = say(client, "What is the capital of France?", **long).choices[0].message.content
    chunks = [chunk.choices[0] for chunk in say(client, "What is the capital of France?", stream=True, **long)]
    texts = [choice.delta.content or "" for choice in chunks]
    assert "".join(texts) == whole
    assert sum(map(bool, texts)) > 1
    assert chunks[-1].finish_reason == "length"


def test_the_engine_without_a_bus_says_the_same(client: openai.OpenAI) -> None:
    for asked in ("What is 3 + 4?", "Tell me a story."):
        command = [sys.executable, "-P", "-m", "radixmesh.local", "--max-tokens", "64", asked]
        alone = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        answer = say(client, asked)
        said, used = alone.rstrip("\n").rsplit("\n", 1)
        assert said == answer.choices[0].message.content
        usage = answer.usage
        assert used == f"[1] tokens: {usage.prompt_tokens} in, 0 cached, {usage.completion_tokens} out"


def test_a_system_prompt_changes_the_manner(client: openai.OpenAI) -> None:
    def asked(system: str) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "What is the capital of Japan?"}]
        answer = client.chat.completions.create(model="radixmesh-tiny", messages=messages, max_tokens=64, temperature=0)  # type: ignore[arg-type]
        return answer.choices[0].message.content or ""

    assert asked("Answer in one word.") == "Tokyo"
    assert asked("Answer the questions.") == "The capital of Japan is Tokyo."


def test_json_is_given_where_it_is_asked_for(client: openai.OpenAI) -> None:
    answer = say(client, 'What is the capital of Japan? Answer in JSON with the key "capital".').choices[0]
    assert json.loads(answer.message.content) == {"capital": "Tokyo"}


def test_thoughts_come_first_where_they_are_asked_for(client: openai.OpenAI) -> None:
    options = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    message = say(client, "What is 12 + 15?", **options).choices[0].message
    assert message.content == "12 + 15 = 27."
    assert message.reasoning_content
    assert "think>" not in message.reasoning_content
    deltas = [chunk.choices[0].delta for chunk in say(client, "What is 12 + 15?", stream=True, **options)]
    assert "".join(delta.reasoning_content or "" for delta in deltas) == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content
    options["extra_body"]["separate_reasoning"] = False
    whole = say(client, "What is 12 + 15?", **options).choices[0].message
    assert whole.reasoning_content is None
    assert [part.strip() for part in whole.content.split("</think>")] == [message.reasoning_content, message.content]


def test_several_turns_are_understood_and_hit_the_cache(client: openai.OpenAI) -> None:
    turns = ["What is the capital of Italy?"]
    turns.append(say(client, *turns).choices[0].message.content)
    turns.append("What is 3 + 4?")
    turns.append(say(client, *turns).choices[0].message.content)
    answer = say(client, *turns, "And what is the capital of Spain?")
    assert "Rome" in turns[1]
    assert "7" in turns[3]
    assert "Madrid" in answer.choices[0].message.content
    assert answer.usage.prompt_tokens_details.cached_tokens >= 32

"""A whole mesh around a model that says what the test wants: thoughts in tags, and control tokens in its text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

from tests.checkpoints import make_tokenizer
from tests.scripted_checkpoint import write
from tests.serving import ServeProcess

TEMPLATE = "{{ messages[-1].content }}{% if enable_thinking %}<think>\n{% endif %}{# and </think> ends it #}"
END, START = 0, 1
"""<|endoftext|> and <|im_start|>, which are not shown."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thinks "abc" and says "xyz<|im_start|>w" behind an opened thought; says "de<|endoftext|>f" behind a Q."""
    source, model = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("scripted")
    make_tokenizer(source)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    letter = {char: tokenizer.encode(char).ids[0] for char in "abc</think>xyzwQdef\n"}
    thinking = [letter["\n"], *(letter[char] for char in "abc</think>xyz"), START, letter["w"], 2]
    plain = [*(letter[char] for char in "Qde"), END, letter["f"]]
    return write(
        model,
        source,
        512,
        [thinking, plain],
        config={"eos_token_id": 2},
        merge={"tokenizer_config.json": {"chat_template": TEMPLATE}},
    )


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[openai.OpenAI]:
    with (
        ServeProcess("--model", str(model)) as mesh,
        openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0) as client,
    ):
        yield client


def think(client: openai.OpenAI, model: Path, *, extra: dict[str, Any] | None = None, **options: Any) -> Any:
    body = {"chat_template_kwargs": {"enable_thinking": True}, **(extra or {})}
    return client.chat.completions.create(
        model=model.name, messages=[{"role": "user", "content": "Q"}], temperature=0, extra_body=body, **options
    )


@pytest.mark.parametrize(
    ("options", "reasoning", "content", "finish"),
    [
        ({}, "abc", "xyzw", "stop"),
        ({"max_tokens": 2}, "ab", None, "length"),
        ({"max_tokens": 5}, "abc</", None, "length"),
        ({"max_tokens": 11}, "abc", None, "length"),
        ({"max_tokens": 12}, "abc", "x", "length"),
        ({"stop": ["z<|im_start|>"]}, "abc", "xy", "stop"),
        ({"stop": ["c</th"]}, "ab", None, "stop"),
        ({"stop": ["<|im_end|>"]}, "abc", "xyzw", "stop"),
        ({"extra": {"separate_reasoning": False}}, None, "abc</think>xyzw", "stop"),
        ({"n": 2}, "abc", "xyzw", "stop"),
    ],
)
def test_thoughts_are_told_apart_whole_and_streamed(
    client: openai.OpenAI, model: Path, options: dict[str, Any], reasoning: str | None, content: str | None, finish: str
) -> None:
    for choice in think(client, model, **options).choices:
        message = choice.message.model_dump()
        assert (message["reasoning_content"], message["content"], choice.finish_reason) == (reasoning, content, finish)
    thoughts, said, ends = dict[int, str](), dict[int, str](), dict[int, str | None]()
    for chunk in think(client, model, stream=True, **options):
        (choice,) = chunk.choices
        delta = choice.delta.model_dump(exclude_unset=True)
        assert not (delta["reasoning_content"] and delta.get("content"))
        assert not (delta["reasoning_content"] and said.get(choice.index))
        thoughts[choice.index] = thoughts.get(choice.index, "") + (delta["reasoning_content"] or "")
        said[choice.index] = said.get(choice.index, "") + (delta.get("content") or "")
        ends[choice.index] = choice.finish_reason
    for index in range(options.get("n", 1)):
        assert (thoughts[index], said[index], ends[index]) == (reasoning or "", content or "", finish)


def test_an_answer_without_thoughts(client: openai.OpenAI, model: Path) -> None:
    answer = think(client, model, extra={"chat_template_kwargs": {}}, max_tokens=4).choices[0].message.model_dump()
    assert (answer["reasoning_content"], answer["content"]) == (None, "def")


def test_hidden_tokens_end_a_completion_by_their_spelling(client: openai.OpenAI, model: Path) -> None:
    for stop, text in (("<|endoftext|>", "de"), ("e<|endo", "d"), ("text|>f", "de")):
        answer = client.completions.create(model=model.name, prompt="Q", max_tokens=4, temperature=0, stop=stop)
        choice = answer.choices[0]
        assert (choice.text, choice.finish_reason, choice.model_dump()["stop_reason"]) == (text, "stop", stop)


def test_raw_completions_keep_their_tags(client: openai.OpenAI, model: Path) -> None:
    answer = client.completions.create(model=model.name, prompt="\n", max_tokens=30, temperature=0)
    assert answer.choices[0].text == "abc</think>xyzw"


def test_a_parser_can_be_named_and_switched_off(model: Path) -> None:
    with ServeProcess("--model", str(model), "--reasoning-parser", "none") as mesh:
        client = openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0)
        message = think(client, model).choices[0].message.model_dump()
    assert (message["reasoning_content"], message["content"]) == (None, "abc</think>xyzw")

"""The tokenizer: any text comes back, names are spelled alike everywhere, the template serves both libraries."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from radixmesh.services.tokenizer.chat.renderer import ChatRenderer
from training import tokenizer as tokenizers_of_ours
from training.corpus.conversation import Conversation
from training.data import Encoder, collate
from training.tokenizer import CONTROL, END, MARKUP, PAD, START, VOCAB, render

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": {"type": "object"}},
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Łódź"}}}
TALK: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Łódź?"},
    {"role": "assistant", "content": "", "reasoning_content": "A tool knows.", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"sky": "blue"}'},
    {"role": "assistant", "content": "It is clear."},
)
TALK_TEXT = (
    '<|im_start|>system\nBe brief.\n\nTools:\n{"name": "get_weather", "description": "The weather.", '
    '"parameters": {"type": "object"}}<|im_end|>\n'
    "<|im_start|>user\nWeather in Łódź?<|im_end|>\n"
    '<|im_start|>assistant\n<think>A tool knows.</think><tool_call>{"name": "get_weather", "arguments": '
    '{"city": "Łódź"}}</tool_call><|im_end|>\n'
    '<|im_start|>tool\n<tool_response>{"sky": "blue"}</tool_response><|im_end|>\n'
    "<|im_start|>assistant\nIt is clear.<|im_end|>\n"
)
TEXTS = ("Grüße,\n 世界 🙂\x00", '{"a": [1, 22, null],\n\t"B": "x  y"}', "  def f(x):\n    return X + 1\n", "don't")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    made = tokenizers_of_ours.make(tokenizers_of_ours.texts(1500, seed=9))
    tokenizers_of_ours.save(made, path, max_length=256)
    return path


def test_both_libraries_code_any_text_alike(directory: Path) -> None:
    plain = Tokenizer.from_file(str(directory / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(str(directory))
    for text in TEXTS:
        ids = plain.encode(text, add_special_tokens=False).ids
        assert plain.decode(ids) == text
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == text
    assert plain.get_vocab_size() == VOCAB == len(theirs)
    assert (theirs.pad_token_id, theirs.eos_token_id) == (PAD, END)


def test_control_tokens_are_hidden_and_markup_is_not(directory: Path) -> None:
    plain = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = plain.encode("".join((*CONTROL, *MARKUP))).ids
    assert ids == list(range(len(CONTROL) + len(MARKUP)))
    assert plain.decode(ids, skip_special_tokens=True).replace(" ", "") == "".join(MARKUP)


def test_digits_stand_alone_and_a_name_is_spelled_alike_everywhere(directory: Path) -> None:
    plain = Tokenizer.from_file(str(directory / "tokenizer.json"))
    assert [plain.decode([i]) for i in plain.encode("2048").ids] == list("2048")
    name = plain.encode("Zorbaline").ids
    for before in ('{"name": "', "My name is ", "Hello,\n", "("):
        assert plain.encode(f"{before}Zorbaline").ids[-len(name) :] == name


def test_the_template_writes_every_kind_of_message(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    assert render(tokenizer, Conversation("tools", TALK, (WEATHER,))) == TALK_TEXT


def test_the_server_renders_what_the_training_does(directory: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    sent = json.loads(json.dumps(TALK))
    sent[2]["tool_calls"][0]["function"]["arguments"] = json.dumps(CALL["function"]["arguments"])  # type: ignore[index]
    renderer = ChatRenderer(tokenizer.chat_template, tokenizer.special_tokens_map)
    prompt = renderer.render(sent, [WEATHER], {"enable_thinking": True})
    assert prompt == TALK_TEXT + "<|im_start|>assistant\n<think>"
    assert renderer.render(sent, [WEATHER], {}) == TALK_TEXT + "<|im_start|>assistant\n"


def counted(directory: Path, *messages: dict[str, Any]) -> list[str]:
    """The tokens that the loss counts, joined by turn."""
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    (example,) = Encoder(tokenizer)([Conversation("x", messages)])
    batch = collate([example], None)
    assert int(example.ids[0]) == START
    spoken = [token for token, counts in zip(example.ids, example.spoken, strict=True) if counts]
    assert batch.targets.tolist() == spoken
    text: str = tokenizer.decode(spoken)
    return text.split(CONTROL[END])


def test_the_loss_counts_what_the_assistant_says(directory: Path) -> None:
    said = counted(directory, *TALK)
    assert said == [
        'A tool knows.</think><tool_call>{"name": "get_weather", "arguments": {"city": "Łódź"}}</tool_call>',
        "It is clear.",
        "",
    ]


def test_opening_its_thoughts_counts_where_it_was_asked_to_think(directory: Path) -> None:
    answer = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
    assert counted(directory, {"role": "user", "content": "Think. 2 + 2?"}, answer) == ["<think>2 + 2</think>4", ""]
    assert counted(directory, {"role": "user", "content": "2 + 2?"}, answer) == ["2 + 2</think>4", ""]

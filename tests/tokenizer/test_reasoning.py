"""Which tags a model's thoughts have, and whether a prompt has opened them."""

from pathlib import Path
from typing import Any

import pytest

from radixmesh.services.tokenizer import encode
from radixmesh.services.tokenizer.chat.reasoning import TAGS, ReasoningTags, reasoning_tags
from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.limits import Limits
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.messages import Submit
from radixmesh.shared.model_files.model_source import bundled_model
from tests.tokenizer.small_tokenizers import CHAT_TEMPLATE, save_chat_model

THINK = TAGS["think"]
THINKING = """
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}
{{- m.content }}{{ '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined %}{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""
USER = {"role": "user", "content": "What does <think> mean?"}


@pytest.mark.parametrize(
    ("parser", "templates", "tags"),
    [
        ("auto", [CHAT_TEMPLATE], None),
        ("auto", [], None),
        ("auto", [CHAT_TEMPLATE, THINKING], THINK),
        ("auto", ["{{ '◁think▷' }}{% if x %}◁/think▷{% endif %}"], TAGS["kimi"]),
        ("auto", ["[THINK]{{ m.thinking }}[/THINK]"], TAGS["magistral"]),
        ("none", [THINKING], None),
        ("kimi", [THINKING], TAGS["kimi"]),
        ("qwen3", [CHAT_TEMPLATE], THINK),
    ],
)
def test_tags_come_from_the_template_or_by_name(parser: str, templates: list[str], tags: ReasoningTags | None) -> None:
    assert reasoning_tags(parser, templates) == tags


def test_parsers_by_name() -> None:
    for given, name in (("deepseek_r1", "deepseek-r1"), ("Qwen3", "qwen3"), ("none", "none")):
        assert TokenizerSettings.load(["--model", "m", "--reasoning-parser", given]).reasoning_parser == name
    assert TokenizerSettings.load(["--model", "m"]).reasoning_parser == "auto"
    with pytest.raises(ConfigError, match=r"--reasoning-parser.*there is no 'gpt'; there are auto, none, think"):
        TokenizerSettings.load(["--model", "m", "--reasoning-parser", "gpt"])


def encoded(directory: Path, messages: list[dict[str, Any]], separate: bool = True, **kwargs: Any) -> encode.Encoded:
    submit = Submit(
        request_id="1" * 32,
        gateway_id="gw",
        model="m",
        messages=messages,
        chat_template_kwargs=kwargs,
        separate_reasoning=separate,
        time_left=60.0,
    )
    return encode.load(directory).encode(submit, Limits(1000, 4096))


@pytest.mark.parametrize(
    ("answer", "kwargs", "opened"),
    [
        ([], {}, False),
        ([], {"enable_thinking": True}, True),
        ([], {"enable_thinking": False}, False),
        ([{"role": "assistant", "content": "It is <think> a tag"}], {"enable_thinking": False}, False),
        ([{"role": "assistant", "content": "<think>\nA tag"}], {"continue_final_message": True}, True),
        ([{"role": "assistant", "content": "<think>hm</think>A tag"}], {"continue_final_message": True}, False),
        ([{"role": "assistant", "content": "A tag"}], {"continue_final_message": True}, False),
        (
            [{"role": "assistant", "content": "", "reasoning_content": "A t"}],
            {"continue_final_message": "reasoning_content"},
            True,
        ),
    ],
)
def test_a_prompt_may_end_inside_of_thoughts(
    tmp_path: Path, answer: list[dict[str, Any]], kwargs: dict[str, Any], opened: bool
) -> None:
    """What the user says of tags does not count."""
    found = encoded(save_chat_model(tmp_path, THINKING), [USER, *answer], **kwargs)
    assert (found.reasoning_tags, found.reasoning_open) == (THINK, opened)


def test_thoughts_stay_in_the_text_where_nobody_wants_them_apart(tmp_path: Path) -> None:
    directory = save_chat_model(tmp_path, THINKING)
    assert encoded(directory, [USER], separate=False, enable_thinking=True)[1:] == (None, False)
    assert encoded(save_chat_model(tmp_path, CHAT_TEMPLATE), [USER])[1:] == (None, False)


def test_the_bundled_model_thinks_behind_its_prompt() -> None:
    assert encoded(bundled_model(), [USER], enable_thinking=True)[1:] == (THINK, True)
    assert encoded(bundled_model(), [USER])[1:] == (THINK, False)

"""Chat templates: the same text as `transformers` renders, and no way out of the sandbox."""

from typing import Any

import jinja2
import pytest
from transformers import PreTrainedTokenizerFast

from radixmesh.services.tokenizer.chat.renderer import ChatRenderer
from radixmesh.services.tokenizer.chat.template import ChatTemplate
from radixmesh.shared.errors import RequestError
from tests.tokenizer.small_tokenizers import CHAT_TEMPLATE, TOOL_TEMPLATE, byte_level

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}{{ tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=none, turns=0) %}
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{%- endif %}
    {%- if message.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content is defined %}{{- '<think>' ~ message.reasoning_content ~ '</think>' }}{%- endif %}
    {%- if message.content is string %}{{- message.content }}{%- endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>' ~ (call.function.arguments | tojson(indent=2)) ~ '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>' }}{%- endif %}
{{- ns.turns }}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}
    {% set rest = messages[1:] %}
    {% set system = '<<SYS>>' + messages[0]['content'] | trim + '<</SYS>>' %}
{% else %}
    {% set rest = messages %}
    {% set system = '' %}
{% endif %}
{% for message in rest %}
  {% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') + message['content'].strip() + ' [/INST]' }}
  {% else %}
{% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}

  {% endif %}
{% endfor %}
{{ dict(a=1).a }}{{ dict.fromkeys('xy', 2).y }}{{ pad_token }}{{ unk_token is defined }}"""

TEMPLATES = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "small": CHAT_TEMPLATE,
    "tools": TOOL_TEMPLATE,
    "documents": "{% for d in documents or [] %}{{ d.title }}: {{ d.text }};{% endfor %}{{ messages[-1].content }}",
    "thinking": "{% for m in messages %}{{ m.thinking or '' }}|{{ m.get('reasoning') }}|{{ m.content }}{% endfor %}",
    "scopes": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}{{ messages | length }}",
}
USER = {"role": "user", "content": " Ça va? <b> 'quoted' \U0001f642 "}
ANSWER = {"role": "assistant", "content": "Well, I "}
CALL = {"function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2.5, None, True]}}}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [{"role": "system", "content": " Be nice. "}, USER, ANSWER, USER],
    "reasoning": [USER, {**ANSWER, "reasoning": "hm"}, {**ANSWER, "thinking": "so", "reasoning_content": None}],
    "calls": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}, {"role": "skip", "content": "x"}],
}
SPECIAL = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "für <alle>", "parameters": {}}}]


def reference(template: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(), chat_template=template, **SPECIAL)


def outcome(render: Any, *args: Any, **kwargs: Any) -> str:
    """The text, or that there is none: what an error is called differs."""
    try:
        return str(render(*args, **kwargs))
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        return f"no text ({isinstance(error, jinja2.TemplateError)})"


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_generation_prompt": True, "enable_thinking": False},
        {"tools": TOOLS, "documents": [{"title": "T", "text": "..."}]},
        {"continue_final_message": True},
        {"continue_final_message": "reasoning_content"},
        {"bos_token": "<other>", "mood": [1, {"a": "b"}]},
    ],
)
def test_the_text_is_that_of_transformers(name: str, chat: str, options: dict[str, Any]) -> None:
    wanted = outcome(reference(TEMPLATES[name]).apply_chat_template, CHATS[chat], tokenize=False, **options)
    before = repr(CHATS[chat])
    assert outcome(ChatTemplate(TEMPLATES[name], SPECIAL).render, CHATS[chat], **options) == wanted
    assert repr(CHATS[chat]) == before


def test_one_of_several_templates_is_for_tools() -> None:
    renderer = ChatRenderer({"default": "plain", "tool_use": "{{ tools | length }} tools"}, {})
    assert renderer.render([USER], None, {}) == "plain"
    assert renderer.render([USER], TOOLS, {}) == "1 tools"
    assert reference({"default": "plain", "tool_use": "t"}).apply_chat_template([USER], tokenize=False) == "plain"
    with pytest.raises(RequestError, match="other purposes"):
        ChatRenderer({"rag": "x"}, {}).render([USER], None, {})


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ dict.mro() }}",
        "{{ dict.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ (messages | map(attribute='__class__') | list)[0].mro() }}",
    ],
)
def test_there_is_no_way_out(template: str) -> None:
    with pytest.raises((jinja2.TemplateError, TypeError)):
        ChatTemplate(template, {}).render([USER])


def test_a_namespace_may_have_a_self() -> None:
    template = "{% set ns = namespace(self=1, b=2) %}{% set ns.b = 3 %}{{ ns.self }}{{ ns.b }}"
    assert ChatTemplate(template, {}).render([USER]) == "13"


def test_the_date_is_todays() -> None:
    template = "{{ strftime_now('%Y') }}"
    assert ChatTemplate(template, {}).render([USER]) == reference(template).apply_chat_template([USER], tokenize=False)


def test_what_cannot_be_continued() -> None:
    drops = ChatTemplate("{{ messages[-1].content[:3] }}", {})
    with pytest.raises(ValueError, match="cannot be continued"):
        drops.render([ANSWER], continue_final_message=True)
    with pytest.raises(ValueError, match="does not use 'content'"):
        ChatTemplate("fixed", {}).render([ANSWER], continue_final_message=True)
    with pytest.raises(ValueError, match="no 'content' to continue"):
        drops.render([{"role": "assistant"}], continue_final_message=True)

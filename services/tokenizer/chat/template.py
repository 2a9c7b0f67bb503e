"""A model's chat template: a jinja2 program from a stranger, run in a sandbox.

It sees what it would see in `transformers`, and gives the same text; the tests compare the two. Not by `transformers`
itself, because importing that takes longer than all else that a tokenizer does before it can serve.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names that a message's reasoning goes by, the one that most templates read first."""

_MARK = "\ue000continue here\ue000 "
"""Put behind the message that is to be continued, to find its end in the text. Ends in a space: see `_cut`."""


class _GenerationBlock(Extension):
    """``{% generation %}``: marks what the model wrote, for training. Here it is only a scope of its own."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Dict:
    """`dict` as templates may use it: the type itself would have more to offer than they should get."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """jinja2's `namespace`, for names that do not begin with an underscore: those are Python's own business."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a template can have an attribute called `self`
        namespace, *given = args
        values = dict(*given, **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(namespace, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: its name begins with an underscore")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # local time, as the template's author expects


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as models were trained on it; jinja2's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_Dict(), namespace=_Namespace
    )
    return environment


class ChatTemplate:
    """One template, compiled. May be rendered by several threads at once."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """
        Args:
            special_tokens: variables by the names that templates know them by, such as ``bos_token``.

        Raises:
            jinja2.TemplateSyntaxError: it does not parse.
        """
        self._source = source
        self._special_tokens = dict(special_tokens)
        self._template: jinja2.Template = _environment().from_string(source)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool | str = False,
        **variables: Any,
    ) -> str:
        """The text of a chat.

        Args:
            messages: plain values; fields that are None are left out.
            continue_final_message: the text ends where the last message's content does, or the field of that name.
            variables: for the template; they win over the special tokens.

        Raises:
            ValueError, TypeError: messages or documents are of the wrong form, or there is nothing to continue.
            jinja2.TemplateError, Exception: whatever the template raises.
        """
        if documents is not None and not all(isinstance(document, dict) for document in documents):
            raise TypeError("documents must be objects")
        chat = [_with_reasoning(message) for message in messages]
        final = ""
        if continue_final_message:
            name = continue_final_message if isinstance(continue_final_message, str) else "content"
            final = self._mark(chat, name)
        text = self._template.render(
            {
                **self._special_tokens,
                **variables,
                "messages": chat,
                "tools": tools,
                "documents": documents,
                "add_generation_prompt": add_generation_prompt,
            }
        )
        return _cut(text, final) if continue_final_message else text

    def _mark(self, chat: list[dict[str, Any]], name: str) -> str:
        """Marks the end of field `name` of the last message; returns the field."""
        last = chat[-1]
        final = last.get(name)
        if not isinstance(final, str):
            raise ValueError(f"the last message has no {name!r} to continue")
        # Reasoning goes by several names, of which the template reads one.
        same = [other for other in REASONING_FIELDS if last.get(other) == final] if name in REASONING_FIELDS else [name]
        if not any(other in self._source for other in same):
            raise ValueError(f"the chat template does not use {name!r}, so it cannot be continued")
        last.update(dict.fromkeys(same, final + _MARK))
        return final


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """`message` without empty fields; what the model thought is there under the names that templates read."""
    if not isinstance(message, Mapping):
        raise TypeError("messages must be objects")
    plain = {key: value for key, value in message.items() if value is not None}
    thought = next((plain[name] for name in REASONING_FIELDS if name in plain), None)
    return plain if thought is None else {"thinking": thought, **plain, "reasoning_content": thought}


def _cut(text: str, final: str) -> str:
    """`text` up to the mark behind the message `final`."""
    at = text.rfind(_MARK.strip())
    if at < 0 or final.strip() not in text:
        raise ValueError("the chat template drops the end of the last message, so it cannot be continued")
    # Where the template strips the message, the mark has lost its space; then so does the message its own.
    return text[:at] if text.startswith(_MARK, at) else text[:at].rstrip()

"""Chat messages to text, by the model's own chat template.

Messages come as OpenAI defines them; templates expect some things in another form, which `plain_messages` sees to:
content parts (templates for text models want a string), the arguments of tool calls (templates want an object, OpenAI's
clients send JSON text), and the one call of the old ``function_call``, with its answer in the role `function`: today's
templates know calls and answers of tools, and pass over any other. Nothing is added: a template may ask whether a
message has content, or a name, and what the client left out, or gave as null, is not there. Only where a template fails
over content that is not there (many just concatenate it) do such messages get an empty one.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from radixmesh.services.tokenizer.chat.reasoning import AUTO, ReasoningTags, reasoning_tags
from radixmesh.services.tokenizer.chat.template import REASONING_FIELDS, ChatTemplate
from radixmesh.shared.errors import ErrorCode, RequestError

_RESERVED = frozenset(
    {
        *("messages", "conversation", "conversations", "tools", "chat_template", "tokenize", "tokenizer_kwargs"),
        *("sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
        "return_assistant_tokens_mask",
    }
)
"""What clients may not set by ``chat_template_kwargs``: what has its own place in a request, and arguments by which
`transformers` does something else than render. They are no variables of any template."""

_OPTIONAL = ("reasoning_effort", "documents")
"""Fields of a request that only some templates have a place for."""

MAX_ERROR = 500
"""Characters of a template's own words that a client is told."""


def _refused(message: str, param: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_REQUEST, message, param=param)


class ChatRenderer:
    """The chat template of one tokenizer, or several by name."""

    def __init__(
        self, source: str | Mapping[str, str] | None, special_tokens: Mapping[str, str], reasoning_parser: str = AUTO
    ) -> None:
        """
        Args:
            source: with several, ``tool_use`` is for requests with tools, ``default`` for all others.
            special_tokens: see `ChatTemplate`.
            reasoning_parser: see `reasoning_tags`.

        Raises:
            jinja2.TemplateSyntaxError: a template does not parse.
        """
        sources = {"default": source} if isinstance(source, str) else dict(source or {})
        self._templates = {name: ChatTemplate(text, special_tokens) for name, text in sources.items() if text}
        self._takes_tools = any("tools" in text for text in sources.values())
        self.reasoning_tags = reasoning_tags(reasoning_parser, sources.values())
        self._takes = {name for name in _OPTIONAL if any(name in text for text in sources.values())}

    @property
    def has_template(self) -> bool:
        return bool(self._templates)

    def render(
        self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None, kwargs: dict[str, Any]
    ) -> str:
        """The prompt's text.

        Args:
            kwargs: variables for the template, and ``add_generation_prompt``, ``continue_final_message`` (the last
                message is the beginning of the answer) and ``documents``.

        Raises:
            RequestError: no template, or messages, tools or kwargs that it does not take; in its own words where it
                has some.
        """
        if not self.has_template:
            raise _refused("the model has no chat template: send a text prompt instead of messages", "messages")
        if not messages:
            raise _refused("messages is empty: a chat needs at least one message", "messages")
        if tools and not self._takes_tools:
            raise _refused("the model's chat template has no place for tools", "tools")
        if wrong := sorted(_RESERVED.intersection(kwargs)):
            raise _refused(f"chat_template_kwargs may not set {wrong[0]!r}", "chat_template_kwargs")
        if unused := [name for name in _OPTIONAL if kwargs.get(name) and name not in self._takes]:
            raise _refused(f"{unused[0]}: the model's chat template has no place for it", unused[0])
        going_on = kwargs.get("continue_final_message", False)
        options = {"add_generation_prompt": not going_on, **kwargs}
        if going_on and options["add_generation_prompt"]:
            raise _refused(
                "continue_final_message and add_generation_prompt exclude each other", "chat_template_kwargs"
            )
        template = self._templates.get("tool_use" if tools else "default") or self._templates.get("default")
        if template is None:
            raise _refused("the model has chat templates for other purposes only", "messages")
        plain = plain_messages(messages)
        try:
            try:
                return template.render(plain, tools=tools or None, **options)
            except (jinja2.UndefinedError, TypeError):
                if all(message.get("content") is not None for message in plain):
                    raise
            filled = [{**message, "content": message.get("content") or ""} for message in plain]
            return template.render(filled, tools=tools or None, **options)
        except jinja2.TemplateError as error:
            words = (error.message or type(error).__name__)[:MAX_ERROR]
            raise _refused(f"the chat template refuses these messages: {words}", "messages") from error
        except Exception as error:  # a template is a program: whatever its input makes it raise is about the input
            words = f"{type(error).__name__}: {error}"[:MAX_ERROR]
            raise _refused(f"the chat template fails on these messages: {words}", "messages") from error


def begun_answer(messages: Sequence[dict[str, Any]], kwargs: dict[str, Any], tags: ReasoningTags) -> str:
    """What the model is to go on with, if ``continue_final_message`` says so; the template writes the tags."""
    name = kwargs.get("continue_final_message", False)
    if not name:
        return ""
    if name in REASONING_FIELDS:
        return tags.begin
    (last,) = plain_messages(messages[-1:])
    return str(last.get("content", ""))


def plain_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages` as text models' templates expect them.

    Raises:
        RequestError: a content part that is not text, or a tool call whose arguments are not a JSON object.
    """
    return [_plain_message(message, f"messages.{index}") for index, message in enumerate(messages)]


def _plain_message(message: dict[str, Any], where: str) -> dict[str, Any]:
    plain = dict(message)
    if isinstance(plain.get("content"), list):
        plain["content"] = "\n".join(
            _part_text(part, f"{where}.content.{index}") for index, part in enumerate(plain["content"])
        )
    if plain.get("role") == "function":
        plain["role"] = "tool"
    if isinstance(call := plain.get("function_call"), dict) and not plain.get("tool_calls"):
        del plain["function_call"]
        plain["tool_calls"] = [{"type": "function", "function": call}]
    if plain.get("tool_calls") == []:
        del plain["tool_calls"]  # servers answer so, clients send it back, and templates ask whether there are calls
    if isinstance(plain.get("tool_calls"), list):
        plain["tool_calls"] = [
            _plain_call(call, f"{where}.tool_calls.{index}") for index, call in enumerate(plain["tool_calls"])
        ]
    return plain


def _part_text(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) and kind in ("text", None) else None
    if not isinstance(text, str):
        raise _refused(f"content of type {str(kind)[:40]!r} is not supported by this model: it takes text", where)
    return text


def _plain_call(call: object, where: str) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise _refused(f"the arguments of a tool call are not JSON: {error}", f"{where}.function.arguments") from error
    if not isinstance(parsed, dict):
        raise _refused("the arguments of a tool call are not a JSON object", f"{where}.function.arguments")
    return {**call, "function": {**function, "arguments": parsed}}

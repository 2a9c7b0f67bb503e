"""Chat messages to text, by the model's own chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from radixmesh.services.tokenizer.chat.messages import plain_messages, refused
from radixmesh.services.tokenizer.chat.reasoning import AUTO, ReasoningTags, reasoning_tags
from radixmesh.services.tokenizer.chat.template import REASONING_FIELDS, ChatTemplate

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
        self._check(messages, tools, kwargs)
        going_on = kwargs.get("continue_final_message", False)
        options = {"add_generation_prompt": not going_on, **kwargs, "tools": tools or None}
        if going_on and options["add_generation_prompt"]:
            raise refused("continue_final_message and add_generation_prompt exclude each other", "chat_template_kwargs")
        template = self._templates.get("tool_use" if tools else "default") or self._templates.get("default")
        if template is None:
            raise refused("the model has chat templates for other purposes only", "messages")
        plain = plain_messages(messages)
        try:
            return _rendered(template, plain, options)
        except jinja2.TemplateError as error:
            words = (error.message or type(error).__name__)[:MAX_ERROR]
            raise refused(f"the chat template refuses these messages: {words}", "messages") from error
        except Exception as error:  # a template is a program: whatever its input makes it raise is about the input
            words = f"{type(error).__name__}: {error}"[:MAX_ERROR]
            raise refused(f"the chat template fails on these messages: {words}", "messages") from error

    def _check(
        self, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None, kwargs: dict[str, Any]
    ) -> None:
        """Raises RequestError for what no template of this model has a place for."""
        if not self.has_template:
            raise refused("the model has no chat template: send a text prompt instead of messages", "messages")
        if not messages:
            raise refused("messages is empty: a chat needs at least one message", "messages")
        if tools and not self._takes_tools:
            raise refused("the model's chat template has no place for tools", "tools")
        if wrong := sorted(_RESERVED.intersection(kwargs)):
            raise refused(f"chat_template_kwargs may not set {wrong[0]!r}", "chat_template_kwargs")
        if unused := [name for name in _OPTIONAL if kwargs.get(name) and name not in self._takes]:
            raise refused(f"{unused[0]}: the model's chat template has no place for it", unused[0])


def _rendered(template: ChatTemplate, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    """The text. Where a template fails over content that is not there (many just concatenate it), it gets an empty one.

    Raises:
        Exception: whatever `ChatTemplate.render` does.
    """
    try:
        return template.render(messages, **options)
    except (jinja2.UndefinedError, TypeError):
        if all(message.get("content") is not None for message in messages):
            raise
    filled = [{**message, "content": message.get("content") or ""} for message in messages]
    return template.render(filled, **options)


def begun_answer(messages: Sequence[dict[str, Any]], kwargs: dict[str, Any], tags: ReasoningTags) -> str:
    """What the model is to go on with, if ``continue_final_message`` says so; the template writes the tags."""
    name = kwargs.get("continue_final_message", False)
    if not name:
        return ""
    if name in REASONING_FIELDS:
        return tags.begin
    (last,) = plain_messages(messages[-1:])
    return str(last.get("content", ""))

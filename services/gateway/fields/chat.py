"""Chat messages, as clients of all faces may send them."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, model_validator

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.fields.schema import Fields


class ChatMessage(Fields):
    """One message of a conversation. Fields that only templates know are passed on."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    """None if it was left out; so it is for the chat template."""

    @model_validator(mode="after")
    def _not_to_be_gone_on_with(self) -> "ChatMessage":
        for name in ("prefix", "partial"):
            if (self.model_extra or {}).get(name):
                raise ValueError(f"{name} is not supported: send continue_final_message beside the messages")
        return self


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: `developer` is `system`, and content is one string, if there is any.

    Raises:
        RequestError: a content part is not text.
    """
    return [_template_message(message, f"messages.{position}") for position, message in enumerate(messages)]


def _template_message(message: ChatMessage, where: str) -> dict[str, Any]:
    """Nothing is added to what the client has sent, because templates ask what there is."""
    fields = message.model_extra or {}
    plain = {**fields, "role": "system" if message.role == "developer" else message.role}
    if message.content is not None:
        plain["content"] = _text(message.content, f"{where}.content")
    elif isinstance(refusal := fields.get("refusal"), str):
        plain["content"] = refusal  # what the assistant said instead
    return plain


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for position, part in enumerate(content):
        kind = part.get("type")
        if kind not in ("text", "refusal"):
            name = f"{where}.{position}.type"
            raise invalid(f"{name}: content of type {str(kind)[:40]!r} is not supported yet, only 'text' is", name)
        text = part.get(kind)
        if not isinstance(text, str):
            raise invalid(f"{where}.{position}.{kind}: must be a string", f"{where}.{position}.{kind}")
        texts.append(text)
    return "\n".join(texts)

"""POST /v1/chat/completions."""

from collections.abc import Sequence
from typing import Any

from radixmesh.services.gateway.answer import Job
from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.intake import make_prompt, read_fields
from radixmesh.services.gateway.openai_schemas import ChatMessage, ChatRequest, StreamOptions


class ChatStyle:
    """Text as the content of the assistant's message."""

    prefix = "chatcmpl"

    def whole_object(self) -> str:
        return "chat.completion"

    def chunk_object(self) -> str:
        return "chat.completion.chunk"

    def chunk_body(self, text: str, first: bool) -> str:
        if first:
            return f'"delta": {{"role": "assistant", "content": {text}}}'
        return '"delta": {}' if text == '""' else f'"delta": {{"content": {text}}}'

    def whole_body(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}


def chat_job(data: dict[str, Any]) -> Job:
    """Reads a request's fields. Raises RequestError."""
    request = read_fields(ChatRequest, data)
    params = request.params()
    messages = template_messages(request.messages)
    variables = request.template_variables
    return Job(
        style=ChatStyle(),
        n=request.n,
        prompts=[make_prompt(request.model, request, params, None, messages, variables)],
        stream=request.stream,
        timeout=request.timeout,
        usage=request.stream_options or StreamOptions(),
    )


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: `developer` is `system`, and content is one string.

    Raises:
        RequestError: a content part is not text.
    """
    return [
        {
            **(message.model_extra or {}),
            "role": "system" if message.role == "developer" else message.role,
            "content": _text(message.content, f"messages.{position}.content"),
        }
        for position, message in enumerate(messages)
    ]


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for position, part in enumerate(content):
        kind, text = part.get("type"), part.get("text")
        if kind != "text":
            name = f"{where}.{position}.type"
            raise invalid(f"{name}: content of type {str(kind)[:40]!r} is not supported yet, only 'text' is", name)
        if not isinstance(text, str):
            raise invalid(f"{where}.{position}.text: must be a string", f"{where}.{position}.text")
        texts.append(text)
    return "\n".join(texts)

"""POST /v1/chat/completions."""

from collections.abc import Sequence
from typing import Any

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.faces.openai.answer import Job
from radixmesh.services.gateway.faces.openai.schemas import ChatMessage, ChatRequest, StreamOptions
from radixmesh.services.gateway.fields.prompt import make_prompt, read_fields


class ChatStyle:
    """Text as the content of the assistant's message, and thoughts as its reasoning."""

    prefix = "chatcmpl"

    def whole_object(self) -> str:
        return "chat.completion"

    def chunk_object(self) -> str:
        return "chat.completion.chunk"

    def chunk_body(self, text: str, reasoning: str, first: bool) -> str:
        role = '"role": "assistant", ' if first else ""
        if reasoning:
            return f'"delta": {{{role}"content": null, "reasoning_content": {reasoning}}}'
        content = f'"content": {text}, ' if first or text != '""' else ""
        return f'"delta": {{{role}{content}"reasoning_content": null}}'

    def whole_body(self, text: str, reasoning: str) -> dict[str, Any]:
        content = None if reasoning and not text else text
        message = {"role": "assistant", "content": content, "reasoning_content": reasoning or None, "refusal": None}
        return {"message": message}


def chat_job(data: dict[str, Any]) -> Job:
    """Reads a request's fields. Raises RequestError."""
    request = read_fields(ChatRequest, data)
    params = request.params()
    messages = template_messages(request.messages)
    variables = request.template_variables
    return Job(
        style=ChatStyle(),
        n=request.n,
        prompts=[make_prompt(request.model, request, params, None, messages, variables, request.separate_reasoning)],
        stream=request.stream,
        timeout=request.timeout,
        usage=request.stream_options or StreamOptions(),
    )


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

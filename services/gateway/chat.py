"""POST /v1/chat/completions."""

from collections.abc import Sequence
from typing import Any

from radixmesh.services.gateway import completions
from radixmesh.services.gateway.answer import Job
from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.intake import make_prompt, refuse, validate
from radixmesh.services.gateway.openai_schemas import ChatMessage, ChatRequest

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **{name: harmless for name, harmless in completions.UNSUPPORTED.items() if name not in ("suffix", "best_of")},
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
}
"""Fields that would change the answer, with the values that do not."""


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
    refuse(data, UNSUPPORTED)
    request = validate(ChatRequest, data)
    params = request.params(request.max_completion_tokens or request.max_tokens)
    messages = template_messages(request.messages)
    kwargs = request.chat_template_kwargs
    return Job(
        style=ChatStyle(),
        model=request.model,
        n=request.n,
        prompts=[make_prompt(request.model, request, params, None, messages, kwargs)],
        stream=request.stream,
        timeout=request.timeout,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
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

"""POST /v1/chat/completions."""

from functools import partial
from typing import Any

from radixmesh.services.gateway.faces.http.job import Job
from radixmesh.services.gateway.faces.openai.answer import OpenAIAnswer
from radixmesh.services.gateway.faces.openai.schemas import ChatRequest
from radixmesh.services.gateway.fields.chat import template_messages
from radixmesh.services.gateway.fields.prompt import make_prompt
from radixmesh.services.gateway.fields.schema import read_fields


class ChatAnswer(OpenAIAnswer):
    """Text as the content of the assistant's message, and thoughts as its reasoning."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

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
    asked = read_fields(ChatRequest, data)
    prompt = make_prompt(
        asked.model,
        asked,
        asked.params(),
        messages=template_messages(asked.messages),
        chat_template_kwargs=asked.template_variables,
        separate_reasoning=asked.separate_reasoning,
    )
    return Job([prompt], asked.stream, partial(ChatAnswer, asked, ()), asked.timeout)

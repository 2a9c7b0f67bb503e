"""POST /v1/completions."""

from functools import partial
from typing import Any

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.faces.http.job import Job
from radixmesh.services.gateway.faces.openai.answer import OpenAIAnswer
from radixmesh.services.gateway.faces.openai.schemas import CompletionRequest
from radixmesh.services.gateway.fields.prompt import make_prompt
from radixmesh.services.gateway.fields.schema import read_fields


class CompletionAnswer(OpenAIAnswer):
    """Text, and nothing around it."""

    prefix = "cmpl"
    whole_object = chunk_object = "text_completion"

    def chunk_body(self, text: str, reasoning: str, first: bool) -> str:
        return f'"text": {text}'

    def whole_body(self, text: str, reasoning: str) -> dict[str, Any]:
        return {"text": text}


def completion_job(data: dict[str, Any]) -> Job:
    """Reads a request's fields. Raises RequestError."""
    asked = read_fields(CompletionRequest, data)
    echo = [prompt for prompt in asked.prompts if isinstance(prompt, str)] if asked.echo else []
    if asked.echo and not echo:
        raise invalid("echo: not supported yet for prompts of token ids", "echo")
    params = asked.params()
    prompts = [make_prompt(asked.model, asked, params, prompt) for prompt in asked.prompts]
    return Job(prompts, asked.stream, partial(CompletionAnswer, asked, echo), asked.timeout)

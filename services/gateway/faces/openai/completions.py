"""POST /v1/completions."""

from typing import Any

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.faces.openai.answer import Job
from radixmesh.services.gateway.faces.openai.schemas import CompletionRequest, StreamOptions
from radixmesh.services.gateway.fields.prompt import make_prompt, read_fields


class CompletionStyle:
    """Text, and nothing around it."""

    prefix = "cmpl"

    def whole_object(self) -> str:
        return "text_completion"

    def chunk_object(self) -> str:
        return "text_completion"

    def chunk_body(self, text: str, reasoning: str, first: bool) -> str:
        return f'"text": {text}'

    def whole_body(self, text: str, reasoning: str) -> dict[str, Any]:
        return {"text": text}


def completion_job(data: dict[str, Any]) -> Job:
    """Reads a request's fields. Raises RequestError."""
    request = read_fields(CompletionRequest, data)
    prompts = request.prompts
    echo = [prompt for prompt in prompts if isinstance(prompt, str)] if request.echo else []
    if request.echo and not echo:
        raise invalid("echo: not supported yet for prompts of token ids", "echo")
    params = request.params()
    return Job(
        style=CompletionStyle(),
        n=request.n,
        prompts=[make_prompt(request.model, request, params, prompt) for prompt in prompts],
        stream=request.stream,
        timeout=request.timeout,
        usage=request.stream_options or StreamOptions(),
        echo=echo,
    )

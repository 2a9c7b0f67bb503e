"""POST /v1/completions."""

from typing import Any

from radixmesh.services.gateway.answer import Job
from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.intake import make_prompt, refuse, validate
from radixmesh.services.gateway.openai_schemas import CompletionRequest

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "best_of": (1,),
    "logprobs": (),
    "prompt_logprobs": (),
    "prompt_embeds": (),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "json_schema": (),
    "regex": (),
    "ebnf": (),
    "use_beam_search": (False,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "lora_path": (),
}
"""Fields that would change the answer, with the values that do not."""


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
    refuse(data, UNSUPPORTED | {"best_of": (1, data.get("n"))})
    request = validate(CompletionRequest, data)
    prompts = request.prompts
    echo = [prompt for prompt in prompts if isinstance(prompt, str)] if request.echo else []
    if request.echo and not echo:
        raise invalid("echo: not supported yet for prompts of token ids", "echo")
    params = request.params(request.max_tokens)
    return Job(
        style=CompletionStyle(),
        model=request.model,
        n=request.n,
        prompts=[make_prompt(request.model, request, params, prompt) for prompt in prompts],
        stream=request.stream,
        timeout=request.timeout,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        echo=echo,
    )

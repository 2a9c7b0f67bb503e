"""The fields of OpenAI's completion and chat requests that are honoured; `fields/known.py` has the others."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.fields.chat import ChatMessage
from radixmesh.services.gateway.fields.prompt import check_prompts, each_prompt
from radixmesh.services.gateway.fields.sampling import Length, Sampling
from radixmesh.services.gateway.fields.schema import Fields
from radixmesh.shared.names import MODEL_NAME_CHARS

MAX_SEQUENCES = 1024


class StreamOptions(Fields):
    """How to stream."""

    include_usage: bool = False
    """In a last chunk of its own."""
    continuous_usage_stats: bool = False
    """And in every chunk, as it stands then."""


class OpenAIRequest(Sampling):
    """What completions and chat completions have in common."""

    model: str = Field("", max_length=MODEL_NAME_CHARS)
    """Empty means the one that is served."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    timeout: float | None = Field(None, gt=0, le=86400)
    """Seconds, in the queue and running, after which the request is given up; the server's own limit holds too."""

    @model_validator(mode="after")
    def _options_only_for_streams(self) -> "OpenAIRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for stream = true")
        return self


class CompletionRequest(OpenAIRequest):
    """POST /v1/completions."""

    prompt: str | list[Any]
    max_tokens: Length | None = 16
    echo: bool = False

    @field_validator("prompt")
    @classmethod
    def _one_form(cls, prompt: str | list[Any]) -> str | list[Any]:
        return check_prompts(prompt)

    @model_validator(mode="after")
    def _bounded(self) -> "CompletionRequest":
        total = len(self.prompts) * self.n
        if total > MAX_SEQUENCES:
            raise ValueError(f"{len(self.prompts)} prompts of n = {self.n} make {total}, over {MAX_SEQUENCES}")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One element a prompt."""
        return each_prompt(self.prompt)


class ChatRequest(OpenAIRequest):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=4096)
    chat_template_kwargs: dict[str, Any] = Field({}, max_length=64)
    separate_reasoning: bool = True
    """Thoughts go to ``reasoning_content``, and not with their tags to ``content``, if the model has tags for them."""
    reasoning_effort: str | None = Field(None, max_length=32)
    documents: list[dict[str, Any]] = Field([], max_length=1024)
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @property
    def template_variables(self) -> dict[str, Any]:
        """`chat_template_kwargs`, with the fields that are variables of templates by their own right.

        Raises:
            RequestError: a variable is given in both places, with two values.
        """
        variables = dict(self.chat_template_kwargs)
        for name in _VARIABLES & self.model_fields_set:
            value = getattr(self, name)
            if variables.setdefault(name, value) != value:
                raise invalid(f"{name}: contradicts chat_template_kwargs.{name}; send one of them", name)
        return variables


_VARIABLES = {"reasoning_effort", "documents", "add_generation_prompt", "continue_final_message"}

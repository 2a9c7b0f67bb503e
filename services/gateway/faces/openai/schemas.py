"""The fields of OpenAI's completion and chat requests that are honoured, with their bounds; `fields` has the others."""

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from radixmesh.services.gateway.errors import invalid
from radixmesh.shared.messages import MIN_REPETITION_PENALTY, SamplingParams
from radixmesh.shared.names import MODEL_NAME_CHARS

MAX_CHOICES = 128
MAX_PROMPTS = 128
MAX_SEQUENCES = 1024
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TOKEN_ID = 2**31 - 1
_INT32 = 2**31
_INT64 = 2**63

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
StopToken = Annotated[int, Field(ge=0, lt=_INT64)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


def _token_key(value: object) -> object:
    """JSON has no integer keys."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10 else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


BiasKey = Annotated[TokenId, BeforeValidator(_token_key)]
Bias = Annotated[float, Field(ge=-100, le=100)]


class Fields(BaseModel):
    """Strict: no strings for numbers, no NaN or infinity."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_left_out(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


ALIASES: dict[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "max_new_tokens"),
    "min_tokens": ("min_new_tokens",),
    "seed": ("sampling_seed",),
}
"""One wish by several names."""

Seed = Annotated[int, Field(ge=-_INT64, le=2 * _INT64 - 1)]
Length = Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]


class Sampling(Fields):
    """What both kinds of request, and gRPC, say about sampling. Names beyond OpenAI's are those of SGLang and vLLM."""

    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=MAX_TOKEN_ID)
    min_p: float = Field(0.0, ge=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=MIN_REPETITION_PENALTY, le=2)
    logit_bias: dict[BiasKey, Bias] = Field({}, max_length=1024)
    seed: Seed | None = None
    sampling_seed: Seed | None = None
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    max_new_tokens: Length | None = None
    min_tokens: int = Field(0, ge=0, le=MAX_TOKEN_ID)
    min_new_tokens: int = Field(0, ge=0, le=MAX_TOKEN_ID)
    stop: Annotated[list[StopString], BeforeValidator(_as_list)] = Field([], max_length=MAX_STOPS)
    stop_token_ids: list[StopToken] = Field([], max_length=128)
    """Those that no vocabulary has never come up."""
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    priority: int = Field(0, ge=-_INT32, lt=_INT32)
    cache_salt: str = Field("", max_length=256)
    extra_key: str = Field("", max_length=256)
    """Prefixes are shared only among requests of the same salt and the same key."""
    add_special_tokens: bool | None = None
    """Whether a text gets what the tokenizer adds around texts, such as a BOS. A chat's template writes its own."""

    def params(self) -> SamplingParams:
        """For the ring, with a seed drawn if the client gave none.

        Raises:
            RequestError: two names of one field disagree, or min_tokens is over max_tokens.
        """
        max_tokens, min_tokens, seed = (self._by_any_name(name) for name in ("max_tokens", "min_tokens", "seed"))
        if max_tokens is not None and min_tokens > max_tokens:
            raise invalid(f"min_tokens: {min_tokens} is over max_tokens, which is {max_tokens}", "min_tokens")
        return SamplingParams(
            **{name: getattr(self, name) for name in _SAME},
            seed=secrets.randbits(64) if seed is None else seed % (2 * _INT64),
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            top_k=max(0, self.top_k),
            stop_token_ids=[token for token in self.stop_token_ids if token <= MAX_TOKEN_ID],
        )

    def _by_any_name(self, name: str) -> Any:
        """What the client gave as `name` or one of its aliases, or else the default."""
        first, *others = [given for given in (name, *ALIASES[name]) if given in self.model_fields_set] or [name]
        value = getattr(self, first)
        for other in others:
            if (second := getattr(self, other)) != value:
                raise invalid(f"{other}: {second} contradicts {first}, which is {value}; send one of them", other)
        return value

    @property
    def cache_namespace(self) -> str:
        """Another for each pair of `cache_salt` and `extra_key`; the salt itself where it stands alone."""
        if not self.extra_key and not self.cache_salt.startswith("\0"):
            return self.cache_salt
        return f"\0{len(self.cache_salt)}:{self.cache_salt}{self.extra_key}"


_OWN = {"seed", "max_tokens", "min_tokens", "top_k", "stop_token_ids"}
_SAME = sorted(set(SamplingParams.model_fields) & set(Sampling.model_fields) - _OWN)


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
        """Checks by hand: a union would try every form on every one of perhaps millions of ids."""
        if not prompt:
            raise ValueError("must not be empty")
        if isinstance(prompt, str) or _token_ids(prompt):
            return prompt
        if len(prompt) > MAX_PROMPTS:
            raise ValueError(f"holds {len(prompt)} prompts, over the limit of {MAX_PROMPTS}")
        if not all(isinstance(item, str) for item in prompt) and not all(_token_ids(item) for item in prompt):
            raise ValueError(
                f"must be a string, a list of strings, a list of token ids (0 to {MAX_TOKEN_ID}), "
                "or a list of lists of token ids"
            )
        if not all(prompt):
            raise ValueError(f"prompt {prompt.index('')} of the list is empty")
        return prompt

    @model_validator(mode="after")
    def _bounded(self) -> "CompletionRequest":
        total = len(self.prompts) * self.n
        if total > MAX_SEQUENCES:
            raise ValueError(f"{len(self.prompts)} prompts of n = {self.n} make {total}, over {MAX_SEQUENCES}")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One element a prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [self.prompt] if isinstance(self.prompt[0], int) else self.prompt


def _token_ids(value: object) -> bool:
    """True for a list of at least one token id."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int for item in value)
        and min(value) >= 0
        and max(value) <= MAX_TOKEN_ID
    )


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

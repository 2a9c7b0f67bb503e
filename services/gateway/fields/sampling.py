"""How tokens are chosen and when a text ends, as clients of all faces may say it, with bounds."""

import secrets
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.fields.schema import Fields
from radixmesh.shared.messages import MIN_REPETITION_PENALTY, SamplingParams

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_TOKEN_ID = 2**31 - 1
_INT32 = 2**31
_INT64 = 2**63

TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]
StopToken = Annotated[int, Field(ge=0, lt=_INT64)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Seed = Annotated[int, Field(ge=-_INT64, le=2 * _INT64 - 1)]
Length = Annotated[int, Field(ge=1, le=MAX_TOKEN_ID)]
Bias = Annotated[float, Field(ge=-100, le=100)]


def _token_key(value: object) -> object:
    """JSON has no integer keys."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10 else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


BiasKey = Annotated[TokenId, BeforeValidator(_token_key)]

ALIASES: dict[str, tuple[str, ...]] = {
    "max_tokens": ("max_completion_tokens", "max_new_tokens"),
    "min_tokens": ("min_new_tokens",),
    "seed": ("sampling_seed",),
}
"""One wish by several names."""


class Sampling(Fields):
    """What all faces may say about sampling. Names beyond OpenAI's are those of SGLang and vLLM."""

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

    def gives(self, name: str) -> bool:
        """Whether the client has said `name`, by any of its names."""
        return not self.model_fields_set.isdisjoint((name, *ALIASES[name]))

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

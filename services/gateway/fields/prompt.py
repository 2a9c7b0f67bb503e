"""From untrusted bytes to validated fields, and from fields to the prompts that enter the ring."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from radixmesh.services.gateway.errors import from_validation, invalid
from radixmesh.services.gateway.faces.openai.schemas import ALIASES, Sampling
from radixmesh.services.gateway.fields.known import refuse
from radixmesh.shared.messages import SamplingParams, Work

MAX_DEPTH = 64
"""How deeply a body's objects and arrays may be nested."""

M = TypeVar("M", bound=BaseModel)

_NOT_FINITE = re.compile(rb"NaN|Infinity|\d[eE]\+?\d\d|\d{299}")
"""What a number may look like that is not finite as a float; most that do are, and harmless strings do too."""
_JSON_NAMES: dict[type, str] = {
    list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null",
}  # fmt: skip
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Prompt:
    """One prompt for the ring, before it has a name and a deadline. One of text, token_ids and messages is given."""

    model: str
    """As the client calls it; empty for the one that is served."""
    work: Work
    chosen: frozenset[str] = frozenset()
    """Sampling fields that the client has set; the model's own defaults stand for the others."""
    text: str | None = None
    token_ids: NDArray[np.int32] | None = None
    messages: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    separate_reasoning: bool = False
    add_special_tokens: bool | None = None

    @property
    def cut_to_fit(self) -> bool:
        """Whether max_tokens is a default, which no client should be refused for."""
        return self.chosen.isdisjoint(("max_tokens", *ALIASES["max_tokens"]))

    @property
    def operation(self) -> str:
        """The gen_ai name of what is asked."""
        return "text_completion" if self.messages is None else "chat"


def make_prompt(
    model: str,
    fields: Sampling,
    params: SamplingParams,
    prompt: str | list[int] | None = None,
    messages: list[dict[str, Any]] | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    separate_reasoning: bool = False,
) -> Prompt:
    """A prompt in one of its forms."""
    return Prompt(
        model=model,
        work=Work(params=params, cache_salt=fields.cache_namespace, priority=fields.priority),
        chosen=frozenset(fields.model_fields_set),
        text=prompt if isinstance(prompt, str) else None,
        token_ids=np.array(prompt, "<i4") if isinstance(prompt, list) else None,
        messages=messages,
        chat_template_kwargs=chat_template_kwargs or {},
        separate_reasoning=separate_reasoning,
        add_special_tokens=fields.add_special_tokens,
    )


def parse_object(raw: bytes) -> dict[str, Any]:
    """Reads a request body that must be one JSON object in UTF-8.

    Raises:
        RequestError: INVALID_REQUEST, saying what is wrong and where.
    """
    try:
        data = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno} (character {error.pos})"
        raise invalid(f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's bound on the digits of an integer
        raise invalid("the body holds a number of too many digits") from None
    if not isinstance(data, dict):
        raise invalid(f"the body must be a JSON object, not {_JSON_NAMES[type(data)]}")
    _check_depth(data)
    if _NOT_FINITE.search(raw):
        _check_finite(data)
    if _SURROGATE.search(raw):
        _check_unicode(data)
    return data


def read_fields(schema: type[M], data: dict[str, Any]) -> M:
    """A request's fields. Raises RequestError, also for those that would change the answer and are not honoured."""
    refuse(data, schema)
    return validate(schema, data)


def validate(kind: type[M], data: object) -> M:
    """The fields as a `kind`. Raises RequestError, naming the field by its dotted path."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise from_validation(error) from None


def _check_finite(data: dict[str, Any]) -> None:
    """Python reads NaN and Infinity, and 1e999 as infinity; JSON has none of them. Call after `_check_depth`."""
    level: list[tuple[str, Any]] = list(data.items())
    while level:
        for path, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                said = "NaN" if math.isnan(value) else "Infinity"
                raise invalid(f"{path[:200]}: must be a finite number, not {said}", path[:200])
        level = [
            (f"{path}.{name}", item)
            for path, value in level
            if isinstance(value, (dict, list))
            for name, item in (value.items() if isinstance(value, dict) else enumerate(value))
        ]


def _check_depth(data: object) -> None:
    """A loop, not a recursion; one round a level."""
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Exception:
    return invalid(f"the body is nested too deeply: the limit is {MAX_DEPTH} levels")


def _check_unicode(data: object) -> None:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise invalid(f"the body holds half of a surrogate pair: {error.object[error.start]!r}") from None

"""From fields to the prompts that enter the ring."""

from typing import Any

import numpy as np

from radixmesh.services.gateway.fields.sampling import MAX_TOKEN_ID, Sampling
from radixmesh.services.gateway.requests.prompt import Prompt
from radixmesh.shared.messages import SamplingParams, Work

MAX_PROMPTS = 128
"""Prompts in one request."""


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
        cut_to_fit=not fields.gives("max_tokens"),
    )


def check_prompts(given: str | list[Any]) -> str | list[Any]:
    """`given`, if it is a text, token ids, or a list of one of these. By hand: a union would try every form on every
    one of perhaps millions of ids.

    Raises:
        ValueError: it is none of these, empty, or too many.
    """
    if not given:
        raise ValueError("must not be empty")
    if isinstance(given, str) or _token_ids(given):
        return given
    if len(given) > MAX_PROMPTS:
        raise ValueError(f"holds {len(given)} prompts, over the limit of {MAX_PROMPTS}")
    if not all(isinstance(item, str) for item in given) and not all(_token_ids(item) for item in given):
        raise ValueError(
            f"must be a string, a list of strings, a list of token ids (0 to {MAX_TOKEN_ID}), "
            "or a list of lists of token ids"
        )
    if not all(given):
        raise ValueError(f"prompt {given.index('')} of the list is empty")
    return given


def each_prompt(given: str | list[Any]) -> list[str] | list[list[int]]:
    """One element a prompt, of what `check_prompts` has let through."""
    if isinstance(given, str):
        return [given]
    return [given] if isinstance(given[0], int) else given


def _token_ids(value: object) -> bool:
    """True for a list of at least one token id."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int for item in value)
        and min(value) >= 0
        and max(value) <= MAX_TOKEN_ID
    )

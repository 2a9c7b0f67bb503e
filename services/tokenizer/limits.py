"""Lengths and vocabulary sizes: what a prompt is checked against."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Presence, SamplingParams, Submit, Task
from radixmesh.shared.model_files.json_file import read_object, whole

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a model; 0 means not known."""

    max_model_len: int = 0
    """Tokens, prompt and output together."""
    vocab_size: int = 0

    def narrowed(self, replicas: Iterable[Presence]) -> "Limits":
        """What holds on all of `replicas`: the smallest of what they say, or this where none says anything."""
        lengths, sizes = [], []
        for replica in replicas:
            lengths.append(_size(replica.attributes, "max_model_len"))
            sizes.append(_size(replica.attributes, "vocab_size"))
        return Limits(
            min(filter(None, lengths), default=self.max_model_len), min(filter(None, sizes), default=self.vocab_size)
        )


def from_config(directory: Path) -> Limits:
    """Reads ``config.json``. Raises ModelLoadError."""
    config = read_object(directory / "config.json")
    if isinstance(config.get("text_config"), dict):
        config = config["text_config"]
    length = _size(config, "max_position_embeddings") or _size(config, "n_positions")
    return Limits(length, _size(config, "vocab_size"))


def _size(fields: dict[str, Any], name: str) -> int:
    """At most what fits a message; some configs say "without end" by a number of many digits."""
    return min(max(whole(fields.get(name)) or 0, 0), _LARGEST)


def check_ids(ids: NDArray[np.int32], limits: Limits, param: str) -> None:
    """Raises RequestError for an empty prompt, or one with ids outside the vocabulary."""
    if not len(ids):
        raise RequestError(ErrorCode.INVALID_REQUEST, "the prompt is empty: it has no tokens", param=param)
    lowest, highest = int(ids.min()), int(ids.max())
    if lowest < 0 or (limits.vocab_size and highest >= limits.vocab_size):
        wrong = lowest if lowest < 0 else highest
        size = limits.vocab_size
        bounds = f"0 to {size - 1}" if size else "0 and up"
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"token id {wrong} is outside the model's vocabulary ({bounds})", param=param
        )


def check_token_params(params: SamplingParams, limits: Limits) -> None:
    """Raises RequestError for a bias on tokens that the model does not have. To stop at one of those does no harm."""
    highest = max(params.logit_bias, default=0)
    if limits.vocab_size and highest >= limits.vocab_size:
        text = f"logit_bias names token {highest}, outside the model's vocabulary (0 to {limits.vocab_size - 1})"
        raise RequestError(ErrorCode.INVALID_REQUEST, text, param="logit_bias")


def check_length(prompt_tokens: int, submit: Submit, limits: Limits, param: str) -> None:
    """Raises RequestError (context_length_exceeded) naming all lengths if prompt and output do not fit the model.

    Client libraries know these errors by their words: keep "is longer than the model's context length" and
    "max_completion_tokens is too large".

    What earlier attempts made counts as prompt, and within `max_tokens`: a choice that has them all needs no room for
    another one. With `cut_to_fit` the output ends where the model's context does.
    """
    limit, max_tokens = limits.max_model_len, submit.work.params.max_tokens
    if not limit:
        return
    resumed = max((len(choice.resumed) for choice in submit.choices), default=0)
    generates = submit.work.task is Task.GENERATE
    has = f"the prompt has {prompt_tokens} tokens" + (f" and {resumed} were generated" if resumed else "")
    done = max_tokens is not None and bool(submit.choices) and resumed >= max_tokens
    if prompt_tokens + resumed + (generates and not done) > limit:
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"{has}, which is longer than the model's context length of {limit} tokens"
            + (", output included" if generates else ""),
            param=param,
        )
    if generates and not submit.cut_to_fit and max_tokens is not None and prompt_tokens + max_tokens > limit:
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"max_tokens or max_completion_tokens is too large: {has} and max_tokens asks for {max_tokens}, together "
            f"{prompt_tokens + max_tokens}, but the model's context length is {limit} tokens",
            param="max_tokens",
        )

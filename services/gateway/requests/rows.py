"""A `TextBatch`, row by row."""

from collections.abc import Iterator
from typing import NamedTuple

from radixmesh.shared.messages import Finish, TextBatch
from radixmesh.shared.messages.rows import FINISH, check_text


class Row(NamedTuple):
    """One row of a `TextBatch`."""

    request_id: str
    choice: int
    attempt: int
    first_index: int
    tokens: list[int]
    text: str
    finish: Finish
    stop_reason: str | int | None
    prompt_tokens: int
    cached_tokens: int
    reasoning: str


def rows_of(batch: TextBatch) -> Iterator[Row]:
    """The rows of a batch. Raises MessageError, before the first of them, for columns that do not fit."""
    check_text(batch, ("texts", "stop_reasons", "prompt_tokens"), ("reasoning",))
    tokens = batch.tokens.tolist()
    end = 0
    for request_id, choice, attempt, first, count, text, finish, reason, prompt, cached, reasoning in zip(
        batch.request_ids,
        batch.choices.tolist(),
        batch.attempts.tolist(),
        batch.first_index.tolist(),
        batch.counts.tolist(),
        batch.texts,
        batch.finish.tolist(),
        batch.stop_reasons,
        batch.prompt_tokens.tolist(),
        batch.cached_tokens.tolist(),
        batch.reasoning or [""] * len(batch.texts),
        strict=True,
    ):
        start, end = end, end + count
        yield Row(
            request_id,
            choice,
            attempt,
            first,
            tokens[start:end],
            text,
            FINISH[finish],
            reason,
            prompt,
            cached,
            reasoning,
        )

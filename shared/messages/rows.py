"""Columnar messages row by row: what a receiver checks, and the log-probabilities, which are ragged twice."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from radixmesh.shared.errors import MessageError
from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.text import TextBatch, TokenBatch
from radixmesh.shared.messages.work import Finish

FINISH = tuple(Finish)
"""By value."""


def check_lengths(message: Message, length: int, each: Iterable[str], some: Iterable[str] = ()) -> None:
    """Raises MessageError unless all columns of `each` have `length` elements, and those of `some` as many or none."""
    for names, lengths in ((each, (length,)), (some, (0, length))):
        for name in names:
            if (found := len(getattr(message, name))) not in lengths:
                raise MessageError(f"{message.TAG}.{name} has {found} elements, not {length}")


def check_ragged(message: Message, counts: str, values: Iterable[str]) -> None:
    """Raises MessageError unless the column `counts` says how each of `values` is cut."""
    column = getattr(message, counts)
    total = int(column.sum()) if len(column) else 0
    if len(column) and column.min() < 0:
        raise MessageError(f"{message.TAG}.{counts} has a negative element")
    for name in values:
        if (found := len(getattr(message, name))) != total:
            raise MessageError(f"{message.TAG}.{counts} add up to {total}, but {name} has {found} elements")


def check_text(batch: TokenBatch | TextBatch, each: Iterable[str], some: Iterable[str]) -> None:
    """Raises MessageError unless what both batches have fits together, and so do columns with an element a row."""
    rows, tokens = len(batch.request_ids), len(batch.tokens)
    each = ("choices", "attempts", "first_index", "counts", "finish", "cached_tokens", *each)
    check_lengths(batch, rows, each, some)
    check_ragged(batch, "counts", ("tokens",))
    check_lengths(batch, tokens, (), ("logprobs", "top_counts"))
    check_ragged(batch, "top_counts", ("top_ids", "top_logprobs"))
    if rows and batch.finish.max() >= len(FINISH):
        raise MessageError(f"{batch.TAG}.finish has {batch.finish.max()}, which is no Finish")


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of some tokens; `top_ids` and `top_values` are ragged by `top_counts`."""

    values: list[float]
    top_counts: list[int]
    top_ids: list[int]
    top_values: list[float]

    @classmethod
    def of(cls, batch: TokenBatch | TextBatch) -> "Logprobs | None":
        """Those of all tokens of `batch`; None if it has none."""
        if not len(batch.logprobs):
            return None
        top_counts = batch.top_counts.tolist() or [0] * len(batch.tokens)
        return cls(batch.logprobs.tolist(), top_counts, batch.top_ids.tolist(), batch.top_logprobs.tolist())

    def cut(self, start: int, stop: int) -> "Logprobs":
        """Those of the tokens from `start` to `stop`."""
        before, until = sum(self.top_counts[:start]), sum(self.top_counts[:stop])
        return Logprobs(
            self.values[start:stop],
            self.top_counts[start:stop],
            self.top_ids[before:until],
            self.top_values[before:until],
        )


def logprob_columns(rows: Sequence[Logprobs | None], counts: Sequence[int]) -> dict[str, list[float] | list[int]]:
    """The columns of `rows`, by name: none if no row has any, else NaN for those that have none.

    Args:
        counts: how many tokens each row has.
    """
    if not any(row is not None for row in rows):
        return {}
    filled = [row or Logprobs([math.nan] * count, [0] * count, [], []) for row, count in zip(rows, counts, strict=True)]
    return {
        "logprobs": [value for row in filled for value in row.values],
        "top_counts": [count for row in filled for count in row.top_counts],
        "top_ids": [token for row in filled for token in row.top_ids],
        "top_logprobs": [value for row in filled for value in row.top_values],
    }

"""Between columns and rows: a `TokenBatch` taken apart, a `TextBatch` put together."""

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate

from radixmesh.services.detokenizer.choice import Advance
from radixmesh.shared.errors import MessageError
from radixmesh.shared.messages import Finish, TextBatch, TokenBatch

_FINISH = tuple(Finish)
"""By value."""


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of a row's tokens; `top_ids` and `top_values` are ragged by `top_counts`."""

    values: list[float]
    top_counts: list[int]
    top_ids: list[int]
    top_values: list[float]

    def cut(self, start: int, stop: int) -> "Logprobs":
        """Those of the tokens from `start` to `stop`."""
        before, until = sum(self.top_counts[:start]), sum(self.top_counts[:stop])
        return Logprobs(
            self.values[start:stop],
            self.top_counts[start:stop],
            self.top_ids[before:until],
            self.top_values[before:until],
        )


@dataclass(slots=True)  # not frozen: one is made per token, and a frozen one takes three times as long to make
class Row:
    """One choice's part of a `TokenBatch`. Never changed once made."""

    replica_id: str
    request_id: str
    choice: int
    attempt: int
    first_index: int
    tokens: list[int]
    finish: Finish
    stop_token: int = -1
    cached_tokens: int = 0
    traceparent: str = ""
    logprobs: Logprobs | None = None

    def cut(self, start: int, stop: int) -> "Row":
        """The row with its tokens from `start` to `stop` only."""
        return replace(
            self,
            first_index=self.first_index + start,
            tokens=self.tokens[start:stop],
            logprobs=self.logprobs and self.logprobs.cut(start, stop),
        )


def split(batch: TokenBatch) -> list[Row]:
    """The rows of `batch`.

    Raises:
        MessageError: columns of different lengths, or an unknown `Finish`.
    """
    _check(batch)
    counts, tokens = batch.counts.tolist(), batch.tokens.tolist()
    columns = zip(
        batch.request_ids,
        batch.choices.tolist(),
        batch.attempts.tolist(),
        batch.first_index.tolist(),
        accumulate(counts, initial=0),
        counts,
        batch.finish.tolist(),
        batch.stop_tokens.tolist() or [-1] * len(counts),
        batch.cached_tokens.tolist(),
        batch.traceparents or [""] * len(counts),
        strict=False,
    )
    logprobs = _logprobs(batch)
    return [
        Row(
            batch.replica_id,
            request_id,
            choice,
            attempt,
            first_index,
            tokens[start : start + count],
            _FINISH[finish],
            stop_token,
            cached,
            traceparent,
            logprobs and logprobs.cut(start, start + count),
        )
        for request_id, choice, attempt, first_index, start, count, finish, stop_token, cached, traceparent in columns
    ]


def _logprobs(batch: TokenBatch) -> Logprobs | None:
    if not len(batch.logprobs):
        return None
    top_counts = batch.top_counts.tolist() or [0] * len(batch.tokens)
    return Logprobs(batch.logprobs.tolist(), top_counts, batch.top_ids.tolist(), batch.top_logprobs.tolist())


def _check(batch: TokenBatch) -> None:
    rows, tokens = len(batch.request_ids), len(batch.tokens)
    for name in ("choices", "attempts", "first_index", "counts", "finish", "cached_tokens"):
        if len(getattr(batch, name)) != rows:
            raise MessageError(f"TokenBatch.{name} has {len(getattr(batch, name))} elements for {rows} rows")
    for name in ("stop_tokens", "traceparents"):
        if len(getattr(batch, name)) not in (0, rows):
            raise MessageError(f"TokenBatch.{name} has {len(getattr(batch, name))} elements for {rows} rows")
    for name in ("logprobs", "top_counts"):
        if len(getattr(batch, name)) not in (0, tokens):
            raise MessageError(f"TokenBatch.{name} has {len(getattr(batch, name))} elements for {tokens} tokens")
    if (rows and batch.counts.min() < 0) or int(batch.counts.sum()) != tokens:
        raise MessageError(f"TokenBatch.counts do not add up to its {tokens} tokens")
    tops = int(batch.top_counts.sum())
    sizes = {len(batch.top_ids), len(batch.top_logprobs)}
    if (len(batch.top_counts) and batch.top_counts.min() < 0) or sizes != {tops}:
        raise MessageError("TokenBatch.top_counts do not add up to its top_ids and top_logprobs")
    if rows and batch.finish.max() >= len(_FINISH):
        raise MessageError(f"TokenBatch.finish has {batch.finish.max()}, which is no Finish")


@dataclass(slots=True)
class TextRows:
    """Rows for one gateway, until they are packed."""

    request_ids: list[str] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    first_index: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish: list[int] = field(default_factory=list)
    stop_reasons: list[str | int | None] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    cached_tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprobs | None] = field(default_factory=list)

    def add(self, row: Row, done: Advance, prompt_tokens: int) -> None:
        """Appends what came of `row`, whose tokens are exactly those that count."""
        self.request_ids.append(row.request_id)
        self.choices.append(row.choice)
        self.attempts.append(row.attempt)
        self.first_index.append(row.first_index)
        self.counts.append(len(row.tokens))
        self.tokens.extend(row.tokens)
        self.texts.append(done.text)
        self.reasoning.append(done.reasoning)
        self.finish.append(done.finish)
        self.stop_reasons.append(done.stop_reason)
        self.prompt_tokens.append(prompt_tokens)
        self.cached_tokens.append(row.cached_tokens)
        self.logprobs.append(row.logprobs)

    def build(self, detokenizer_id: str) -> TextBatch:
        """All rows as one message. Rows without log-probabilities get NaN if others have some."""
        columns = {}
        if any(item is not None for item in self.logprobs):
            blank = [Logprobs([math.nan] * count, [0] * count, [], []) for count in self.counts]
            items = [item or empty for item, empty in zip(self.logprobs, blank, strict=True)]
            columns = {
                "logprobs": [value for item in items for value in item.values],
                "top_counts": [value for item in items for value in item.top_counts],
                "top_ids": [value for item in items for value in item.top_ids],
                "top_logprobs": [value for item in items for value in item.top_values],
            }
        return TextBatch.model_validate(
            {
                "detokenizer_id": detokenizer_id,
                "request_ids": self.request_ids,
                "choices": self.choices,
                "attempts": self.attempts,
                "first_index": self.first_index,
                "counts": self.counts,
                "tokens": self.tokens,
                "texts": self.texts,
                "reasoning": self.reasoning if any(self.reasoning) else [],
                "finish": self.finish,
                "stop_reasons": self.stop_reasons,
                "prompt_tokens": self.prompt_tokens,
                "cached_tokens": self.cached_tokens,
                **columns,
            }
        )

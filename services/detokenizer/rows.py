"""Between columns and rows: a `TokenBatch` taken apart, a `TextBatch` put together."""

from dataclasses import dataclass, field, replace
from itertools import accumulate

from radixmesh.services.detokenizer.choice import Advance
from radixmesh.shared.messages import Finish, TextBatch, TokenBatch
from radixmesh.shared.messages.rows import FINISH, Logprobs, check_text, logprob_columns


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
    check_text(batch, (), ("stop_tokens", "traceparents"))
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
    logprobs = Logprobs.of(batch)
    return [
        Row(
            batch.replica_id,
            request_id,
            choice,
            attempt,
            first_index,
            tokens[start : start + count],
            FINISH[finish],
            stop_token,
            cached,
            traceparent,
            logprobs and logprobs.cut(start, start + count),
        )
        for request_id, choice, attempt, first_index, start, count, finish, stop_token, cached, traceparent in columns
    ]


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
                **logprob_columns(self.logprobs, self.counts),
            }
        )

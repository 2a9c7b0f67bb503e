"""One request in work: what was sent round the ring, what came back, and what the client has yet to read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from opentelemetry.trace import INVALID_SPAN, Span

from radixmesh.shared.errors import RequestError
from radixmesh.shared.messages import Choice, Finish, Routed, Submit, TextBatch

_FINISH = {int(finish): finish for finish in Finish}


class Phase(Enum):
    """Where a request is."""

    WAITING = "waiting"
    """For a ready replica, or for its next try."""
    ROUTING = "routing"
    """Submitted; no `Routed` yet."""
    RUNNING = "running"
    ENDED = "ended"


class Delta(NamedTuple):
    """What is new of one choice."""

    choice: int
    text: str
    tokens: list[int]
    finish: Finish
    """Not RUNNING on the choice's last delta, and on no other."""
    stop_reason: str | int | None
    reasoning: str = ""
    """Thoughts, which come before `text`."""

    @property
    def matched_stop(self) -> str | int | None:
        """What ended a text that stopped: `stop_reason`, or where that is none the model's own end token."""
        if self.finish is not Finish.STOP or self.stop_reason is not None or not self.tokens:
            return self.stop_reason
        return self.tokens[-1]


@dataclass(slots=True)
class ChoiceState:
    """One choice: every token received, and the text that the client has not read yet."""

    index: int
    tokens: list[int] = field(default_factory=list)
    read: int = 0
    """How many of `tokens` the client has."""
    texts: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    """Thoughts that the client has not read yet."""
    finish: Finish = Finish.RUNNING
    stop_reason: str | int | None = None
    cached_tokens: int = -1
    """-1 until its first row."""
    last_at: float = 0.0


class LiveRequest:
    """One `Submit` from its acceptance to its end.

    Only `RequestTable` changes it; the client's side calls `take` and reads `error`, and is told by `wake`.

    Args:
        submit: attempt 0; `resubmit` sets its `time_left`.
        deadline: on the table's clock.
        wake: called when there is something to take, or the end has come.
        chosen: sampling fields that the client has set; the model's own defaults stand for the others.
        streaming: whether to wake the client for every piece, or only at the end.
        span: the request's trace span.
    """

    def __init__(
        self,
        submit: Submit,
        deadline: float,
        wake: Callable[[], None],
        *,
        chosen: frozenset[str] = frozenset(),
        streaming: bool = True,
        span: Span = INVALID_SPAN,
    ) -> None:
        self.submit = submit
        self.deadline = deadline
        self.wake = wake
        self.chosen = chosen
        self.streaming = streaming
        self.span = span
        self.choices = [ChoiceState(index) for index in range(submit.work.params.n)]
        self.unfinished = submit.work.params.n
        self.phase = Phase.WAITING
        self.attempt = 0
        self.tries = 0
        """Attempts that count against the limit."""
        self.due = 0.0
        """WAITING: the next try, not earlier. ROUTING: when to give this attempt up."""
        self.give_up = deadline
        """WAITING: when to stop hoping for a replica."""
        self.routed: Routed | None = None
        self.heard_at = 0.0
        """When anything last came for this attempt."""
        self.prompt_tokens = 0
        self.first_token_at: float | None = None
        self.started_at = 0.0
        self.error: RequestError | None = None
        self.pending_chars = 0
        self.blocked_since: float | None = None
        """Set by the client's side while a write to the client waits for it to read."""
        self._dirty: dict[int, None] = {}

    @property
    def request_id(self) -> str:
        return self.submit.request_id

    @property
    def ended(self) -> bool:
        """Nothing more will come; `take` may still have something."""
        return self.phase is Phase.ENDED

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices together."""
        return sum(len(choice.tokens) for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that no choice had to compute in the first attempt that it answered."""
        known = [choice.cached_tokens for choice in self.choices if choice.cached_tokens >= 0]
        return min(min(known, default=0), self.prompt_tokens)

    def take(self) -> Iterator[Delta]:
        """What has come since the last call, one delta a choice, however many rows it came in."""
        dirty, self._dirty = self._dirty, {}
        self.pending_chars = 0
        for index in dirty:
            choice = self.choices[index]
            texts, choice.texts = choice.texts, []
            reasoning, choice.reasoning = choice.reasoning, []
            tokens = choice.tokens[choice.read :]
            choice.read = len(choice.tokens)
            yield Delta(index, "".join(texts), tokens, choice.finish, choice.stop_reason, "".join(reasoning))

    # -- for RequestTable --

    def add(
        self,
        choice: ChoiceState,
        tokens: list[int],
        text: str,
        finish: Finish,
        reason: str | int | None,
        reasoning: str = "",
    ) -> None:
        """Appends to an unfinished choice what is to reach the client."""
        choice.tokens.extend(tokens)
        if text:
            choice.texts.append(text)
            self.pending_chars += len(text)
        if reasoning:
            choice.reasoning.append(reasoning)
            self.pending_chars += len(reasoning)
        if finish is not Finish.RUNNING:
            choice.finish, choice.stop_reason = finish, reason
            self.unfinished -= 1
        self._dirty[choice.index] = None

    def resubmit(self, now: float) -> Submit:
        """The `Submit` of the present attempt: unfinished choices with all tokens that came so far."""
        left = {"time_left": self.deadline - now}
        if self.attempt == 0:
            return self.submit.model_copy(update=left)
        choices = [
            Choice(index=choice.index, resumed=np.array(choice.tokens, "<i4"))
            for choice in self.choices
            if choice.finish is Finish.RUNNING
        ]
        return self.submit.model_copy(update={"attempt": self.attempt, "choices": choices, **left})

    def end(self, error: RequestError | None = None) -> None:
        """Moves to ENDED, once, and wakes the client."""
        self.phase = Phase.ENDED
        self.error = error
        self.wake()


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
    """The rows of a batch. Raises ValueError or KeyError, at the row at fault, for columns that do not fit."""
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
            _FINISH[finish],
            reason,
            prompt,
            cached,
            reasoning,
        )

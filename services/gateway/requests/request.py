"""One request in work: what was sent round the ring, what came back, and what the client has yet to read."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from opentelemetry.trace import INVALID_SPAN, Span

from radixmesh.shared.errors import RequestError
from radixmesh.shared.messages import Choice, Finish, Routed, Submit

FINISH_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.CANCELLED: "abort"}
"""What clients of most faces, and traces, call them."""

DEFAULTED = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"})
"""Sampling fields for which a model may have defaults of its own."""


class RequestPhase(Enum):
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


class Request:
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
        self.phase = RequestPhase.WAITING
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
        return self.phase is RequestPhase.ENDED

    @property
    def output_tokens(self) -> int:
        """Tokens of all choices together."""
        return sum(len(choice.tokens) for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that no choice had to compute in the first attempt that it answered."""
        known = [choice.cached_tokens for choice in self.choices if choice.cached_tokens >= 0]
        return min(min(known, default=0), self.prompt_tokens)

    @property
    def dependencies(self) -> tuple[tuple[str, int], ...]:
        """The (instance, epoch) of those whose death loses the request; none before it is routed."""
        to = self.routed
        return () if to is None else ((to.replica_id, to.replica_epoch), (to.detokenizer_id, to.detokenizer_epoch))

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

    def settle_sampling(self, defaults: Mapping[str, float | int]) -> None:
        """Fills in the model's defaults, which are known by the time of the first attempt, and stay for all others."""
        unset = {name: value for name, value in defaults.items() if name in DEFAULTED and name not in self.chosen}
        if unset:
            work = self.submit.work
            work = work.model_copy(update={"params": work.params.model_copy(update=unset)})
            self.submit = self.submit.model_copy(update={"work": work})

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
        self.phase = RequestPhase.ENDED
        self.error = error
        self.wake()

"""The open requests of one detokenizer: messages in, messages out.

    OpenText    opens a request (attempt n closes n - 1); `resumed` ids are replayed without a word
    TokenBatch  each row advances its choice; a row with a `finish` closes it
    Cancel      closes choices silently
    clock       closes what is past its deadline, and drops tokens whose OpenText never came

Rows that were seen before are dropped by their `first_index`, rows of old attempts by their `attempt`. A gap closes
the request with REPLICA_LOST, upon which the gateway sends it round again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.trace import Span, SpanKind

from radixmesh.services.detokenizer.attempts import AttemptMemory
from radixmesh.services.detokenizer.choice import ChoiceText
from radixmesh.services.detokenizer.outgoing import Outgoing
from radixmesh.services.detokenizer.pending import PendingRows
from radixmesh.services.detokenizer.rows import Row, split
from radixmesh.services.detokenizer.vocabulary import Vocabulary
from radixmesh.shared import telemetry
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Cancel, Choice, Finish, OpenText, TokenBatch
from radixmesh.shared.telemetry import Attr

MAX_PENDING_ROWS = 16384
REMEMBERED = 16384
"""Closed requests whose late messages are known as such."""


@dataclass(slots=True)
class _Open:
    """A choice that has not ended."""

    text: ChoiceText
    next_index: int
    span: Span | None = None


@dataclass(slots=True)
class _Request:
    opened: OpenText
    deadline: float
    choices: dict[int, _Open]


class Table:
    """Open requests by id. `now` is any clock that only goes forward, in seconds."""

    def __init__(self, vocabulary: Vocabulary, *, max_requests: int = 65536, hold_seconds: float = 2.0) -> None:
        self._vocabulary = vocabulary
        self._max_requests = max_requests
        self._requests: dict[str, _Request] = {}
        self._pending = PendingRows(hold_seconds, MAX_PENDING_ROWS)
        self._closed = AttemptMemory(REMEMBERED)
        self._orphans = AttemptMemory(REMEMBERED)
        self.opened = 0
        """Attempts opened so far."""

    def __len__(self) -> int:
        return len(self._requests)

    def open(self, message: OpenText, now: float) -> Outgoing:
        """Begins an attempt that came at `now`, and catches up with tokens of it that came early."""
        out = Outgoing()
        request_id, attempt = message.request_id, message.attempt
        known = self._requests.get(request_id)
        seen = known is not None and known.opened.attempt >= attempt
        if seen or self._closed.covers(request_id, attempt) or not message.choices:
            return out
        if known is not None:
            self._close(known)
        elif len(self._requests) >= self._max_requests:
            error = f"the detokenizer already has {self._max_requests} open requests"
            out.fail(message, ErrorCode.QUEUE_FULL, error, retry_after=1.0)
            return out
        if self._orphans.covers(request_id, attempt):
            out.fail(message, ErrorCode.REPLICA_LOST, "tokens were dropped before their request was opened")
            self._closed.note(request_id, attempt)
            return out
        self.opened += 1
        request = _Request(message, now + message.time_left, {})
        self._requests[request_id] = request
        for choice in message.choices:
            request.choices[choice.index] = self._begin(message, choice)
        for row in self._pending.take(request_id, attempt):
            self._row(row, out, now)
        return out

    def tokens(self, batch: TokenBatch, now: float) -> Outgoing:
        """Takes in one step's tokens.

        Raises:
            MessageError: the batch is inconsistent; nothing of it was taken in.
        """
        out = Outgoing()
        for row in split(batch):
            self._row(row, out, now)
        return out

    def cancel(self, message: Cancel) -> None:
        """Closes choices that nobody waits for, also such as were not opened yet."""
        choices, attempts = message.choices.tolist(), message.attempts.tolist()
        for request_id, choice, attempt in zip(message.request_ids, choices, attempts, strict=False):
            request = self._requests.get(request_id)
            if request is not None and request.opened.attempt <= attempt:
                for index in list(request.choices) if choice < 0 else [choice]:
                    self._end(request, index, Finish.CANCELLED)
            if choice < 0:
                self._closed.note(request_id, attempt)

    def tick(self, now: float) -> Outgoing:
        """Lets time pass: call every few seconds."""
        out = Outgoing()
        for request in [request for request in self._requests.values() if request.deadline <= now]:
            self._close(request, ErrorCode.DEADLINE_EXCEEDED)
        self._drop(self._pending.expired(now), out)
        return out

    def _begin(self, opened: OpenText, choice: Choice) -> _Open:
        text = ChoiceText(self._vocabulary, opened)
        resumed = choice.resumed.tolist()
        text.advance(resumed)  # the client has had this text
        return _Open(text, len(resumed))

    def _row(self, row: Row, out: Outgoing, now: float) -> None:
        request = self._requests.get(row.request_id)
        if request is None or request.opened.attempt < row.attempt:
            if not self._closed.covers(row.request_id, row.attempt):
                self._drop(self._pending.add(row, now), out)
            return
        choice = request.choices.get(row.choice)
        if choice is None or request.opened.attempt > row.attempt:
            return
        if row.first_index > choice.next_index:
            missing = f"output tokens {choice.next_index} to {row.first_index - 1} of choice {row.choice} are missing"
            out.fail(request.opened, ErrorCode.REPLICA_LOST, missing)
            out.cancel(row.replica_id, row.request_id, -1, row.attempt)
            self._close(request, ErrorCode.REPLICA_LOST)
            return
        if row.first_index < choice.next_index:
            row = row.cut(choice.next_index - row.first_index, len(row.tokens))
        if row.tokens or row.finish is not Finish.RUNNING:
            self._advance(request, choice, row, out)

    def _advance(self, request: _Request, choice: _Open, row: Row, out: Outgoing) -> None:
        if row.traceparent and choice.span is None:
            choice.span = _span(row)
        done = choice.text.advance(row.tokens, row.finish, row.stop_token)
        if done.used < len(row.tokens):
            row = row.cut(0, done.used)
        choice.next_index += len(row.tokens)
        out.rows_for(request.opened.gateway_id).add(row, done, request.opened.prompt_tokens)
        if done.finish is Finish.RUNNING:
            return
        if isinstance(done.stop_reason, str) and row.finish is Finish.RUNNING:
            out.cancel(row.replica_id, row.request_id, row.choice, row.attempt)
        self._end(request, row.choice, done.finish)

    def _drop(self, rows: Iterable[Row], out: Outgoing) -> None:
        """Gives up on rows whose `OpenText` did not come; their sequences need not run on."""
        for row in rows:
            if self._closed.covers(row.request_id, row.attempt):
                continue
            self._orphans.note(row.request_id, row.attempt)
            out.cancel(row.replica_id, row.request_id, -1, row.attempt)

    def _end(self, request: _Request, index: int, finish: Finish, error: ErrorCode | None = None) -> None:
        choice = request.choices.pop(index, None)
        if choice is not None and choice.span is not None:
            choice.span.set_attribute(Attr.OUTPUT_TOKENS, choice.next_index)
            choice.span.set_attribute(Attr.FINISH_REASONS, [finish.name.lower()])
            if error is not None:
                choice.span.set_attribute(Attr.ERROR, error)
            choice.span.end()
        if not request.choices:
            self._closed.note(request.opened.request_id, request.opened.attempt)
            self._requests.pop(request.opened.request_id, None)

    def _close(self, request: _Request, error: ErrorCode | None = None) -> None:
        for index in list(request.choices):
            self._end(request, index, Finish.CANCELLED, error)


def _span(row: Row) -> Span:
    return telemetry.start_span(
        telemetry.SPAN_DETOKENIZE,
        telemetry.context_from_traceparent(row.traceparent),
        kind=SpanKind.CONSUMER,
        attributes={Attr.REQUEST_ID: row.request_id, Attr.CHOICE: row.choice, Attr.ATTEMPT: row.attempt},
    )

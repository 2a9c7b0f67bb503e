"""The life of every request in work, as a pure state machine.

    open ──▶ WAITING ──a replica is ready──▶ ROUTING ──Routed──▶ RUNNING ──last choice's end──▶ ENDED
                ▲                               │                   │
                └──── attempt + 1, back-off ────┴── lost, gap, … ◀──┘

`RequestTable` takes what comes off the bus, changes of presence and ticks of a clock. It writes what clients may read
into `Request`s and returns the messages to publish. Whatever is lost, doubled, late or dead on the way, a choice's
text has no gap and no repetition, and it ends exactly once: with a `Finish`, or with its request's error.
"""

from collections.abc import Iterator

from radixmesh.services.gateway.errors import invalid, unknown_model
from radixmesh.services.gateway.requests.ports import Limits, Mesh, Observer
from radixmesh.services.gateway.requests.request import Request, RequestPhase
from radixmesh.services.gateway.requests.rows import Row, rows_of
from radixmesh.services.gateway.requests.silence import why_lost
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Cancel, Finish, RequestFailed, Routed, Submit, TextBatch

Outgoing = list[Submit | Cancel]

_SOON, _LATER = 0.1, 2.0
"""Seconds between two looks at the requests: while one of them is still on its way to a replica, and otherwise."""

_AFTER_RECONNECT = 0.5
"""Seconds that the others get to be back on the bus, too."""
_RETRY_LATER = (0.25, 5.0)
_DEPARTED_KEPT = 1024


class RequestTable:
    """All requests of one gateway that have not ended. `now` is any clock that only goes forward, in seconds."""

    def __init__(self, limits: Limits, mesh: Mesh, observer: Observer | None = None) -> None:
        self._limits = limits
        self._mesh = mesh
        self._observer = observer or Observer()
        self._requests: dict[str, Request] = {}
        self._departed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def get(self, request_id: str) -> Request | None:
        return self._requests.get(request_id)

    # -- the client's side --

    def open(self, request: Request, now: float) -> Outgoing:
        """Takes a request in.

        Raises:
            RequestError: too many are in work, or no such model.
        """
        if len(self._requests) >= self._limits.max_inflight:
            text = f"the gateway already has {self._limits.max_inflight} prompts in work, its limit"
            raise RequestError(ErrorCode.QUEUE_FULL, text, retry_after=1.0)
        if self._mesh.unknown(request.submit.model):
            raise self._not_served(request)
        self._requests[request.request_id] = request
        request.started_at = now
        request.give_up = min(request.deadline, now + self._limits.ready_wait)
        return self._try(request, now)

    def cancel(self, request_id: str, now: float) -> Outgoing:
        """Nobody waits for the request any more. Does nothing if it has ended."""
        request = self._requests.get(request_id)
        if request is None:
            return []
        return self._end(request, RequestError(ErrorCode.CANCELLED, "the client has gone"), now)

    def abort(self, request_id: str, now: float) -> Outgoing | None:
        """Ends the request as it stands: open choices finish as CANCELLED. None if there is no such request."""
        request = self._requests.get(request_id)
        if request is None:
            return None
        for choice in request.choices:
            if choice.finish is Finish.RUNNING:
                request.add(choice, [], "", Finish.CANCELLED, None)
        return self._end(request, None, now)

    def fail(self, request_id: str, error: RequestError, now: float) -> Outgoing:
        """Ends the request with `error`, if it has not ended."""
        request = self._requests.get(request_id)
        return [] if request is None else self._end(request, error, now)

    # -- from the bus --

    def routed(self, message: Routed, now: float) -> Outgoing:
        request = self._requests.get(message.request_id)
        if request is None or message.attempt != request.attempt or request.phase is not RequestPhase.ROUTING:
            return []
        request.phase, request.routed, request.heard_at = RequestPhase.RUNNING, message, now
        request.prompt_tokens = request.prompt_tokens or message.prompt_tokens
        self._observer.routed(request, message)
        for instance, epoch in request.dependencies:
            if self._departed.get(instance, -1) >= epoch:
                return self._redispatch(request, "lost", now)
        return []

    def text(self, batch: TextBatch, now: float) -> Outgoing:
        """Takes in one row per choice; rows of ended requests, old attempts and seen tokens are dropped."""
        out: Outgoing = []
        for row in rows_of(batch):
            request = self._requests.get(row.request_id)
            if request is not None and row.attempt == request.attempt and request.phase is not RequestPhase.WAITING:
                out += self._row(request, row, now)
        return out

    def failed(self, message: RequestFailed, now: float) -> Outgoing:
        """Another service gave up. Sends the request round again if that can help, else ends it."""
        request = self._requests.get(message.request_id)
        if request is None or message.attempt != request.attempt or request.phase is RequestPhase.WAITING:
            return []
        if 0 <= message.choice < len(request.choices) and request.choices[message.choice].finish is not Finish.RUNNING:
            return []
        if message.code is ErrorCode.REPLICA_LOST:
            return self._redispatch(request, "replica_lost", now)
        error = RequestError(message.code, message.message, param=message.param, retry_after=message.retry_after)
        # The tokenizer may see presence later than we do, and a request that is under way must not end because the
        # replica that takes it over is busy, or because a more important one took its place.
        begun = request.output_tokens > 0
        if begun:
            request.give_up = request.deadline
        full = message.code is ErrorCode.QUEUE_FULL and (begun or request.attempt > 0)
        if full or message.code is ErrorCode.NOT_READY:
            return self._try_later(request, error, now)
        return self._end(request, error, now)

    def cancelled_elsewhere(self, message: Cancel, now: float) -> Outgoing:
        """Another gateway's `Cancel`, of whole requests: ends those of them that are ours."""
        out: Outgoing = []
        for request_id, choice, attempt in zip(
            message.request_ids, message.choices.tolist(), message.attempts.tolist(), strict=True
        ):
            request = self._requests.get(request_id)
            if request is not None and choice < 0 and attempt >= request.attempt:
                out += self.abort(request_id, now) or []
        return out

    # -- presence and time --

    def pause(self, now: float) -> float:
        """Seconds until `tick` may have something to do. A look wakes the process, which costs more than the look."""
        requests = self._requests.values()
        if any(request.phase is not RequestPhase.RUNNING for request in requests):
            return _SOON
        first = min((request.deadline for request in requests), default=now + _LATER)
        return min(max(first - now, 0.0), _LATER)

    def gone(self, instance: str, epoch: int, now: float) -> Outgoing:
        """A member left in this epoch. Its requests go round again."""
        self._departed[instance] = max(epoch, self._departed.pop(instance, -1))
        while len(self._departed) > _DEPARTED_KEPT:
            self._departed.pop(next(iter(self._departed)))
        out: Outgoing = []
        for request in self:
            if request.phase is RequestPhase.RUNNING:
                lost = [name for name, held in request.dependencies if name == instance and held <= epoch]
                out += self._redispatch(request, "lost", now) if lost else []
        return out

    def came(self, instance: str, epoch: int) -> None:
        """A member is there (again). One that was only silent for long comes back in the epoch it had."""
        if self._departed.get(instance, -1) >= epoch:
            del self._departed[instance]

    def mesh_changed(self, now: float) -> Outgoing:
        """Someone became ready: waiting requests try again."""
        return [sent for request in self if request.phase is RequestPhase.WAITING for sent in self._try(request, now)]

    def reconnected(self, now: float) -> Outgoing:
        """The bus was away and may have lost anything: all that is out there goes round again, at no charge."""
        out: Outgoing = []
        for request in self:
            if request.phase in (RequestPhase.ROUTING, RequestPhase.RUNNING):
                request.tries -= 1
                out += self._redispatch(request, "reconnected", now, _AFTER_RECONNECT)
        return out

    def tick(self, now: float) -> Outgoing:
        """Acts on deadlines and timeouts. Call it again after `pause`, or when a request or a member has come."""
        return [sent for request in self for sent in self._tick(request, now)]

    def _tick(self, request: Request, now: float) -> Outgoing:
        if now >= request.deadline:
            text = f"the request did not end within {request.deadline - request.started_at:g} s"
            return self._end(request, RequestError(ErrorCode.DEADLINE_EXCEEDED, text), now)
        if request.blocked_since is not None and now - request.blocked_since > self._limits.client_timeout:
            return self._end(request, RequestError(ErrorCode.CANCELLED, "the client does not read its stream"), now)
        if request.phase is RequestPhase.WAITING:
            return self._try(request, now)
        if not self._mesh.reachable():
            return []  # silence proves nothing; `reconnected` sees to it
        if request.phase is RequestPhase.ROUTING:
            return self._redispatch(request, "route_timeout", now) if now >= request.due else []
        reason = why_lost(request, self._mesh, self._limits, now)
        return self._redispatch(request, reason, now) if reason else []

    # -- one request --

    def _try(self, request: Request, now: float) -> Outgoing:
        """Submits a waiting request if its time has come and someone can take it."""
        if now < request.due:
            return []
        if request.attempt == 0 and (model := self._mesh.named(request.submit.model)) != request.submit.model:
            request.submit = request.submit.model_copy(update={"model": model})  # it came before any model was known
        if self._mesh.missing(request.submit.model):
            return self._end(request, self._not_served(request), now) if now >= request.give_up else []
        if request.attempt == 0:
            request.settle_sampling(self._mesh.sampling_defaults(request.submit.model))
        request.phase, request.routed = RequestPhase.ROUTING, None
        request.due = now + self._limits.route_timeout
        request.tries += 1
        return [request.resubmit(now)]

    def _not_served(self, request: Request) -> RequestError:
        model = request.submit.model
        if self._mesh.unknown(model):
            if not model:
                return invalid("model: required, as there are several", "model")
            return unknown_model(model)
        why = self._mesh.missing(model)
        text = (f"{model!r} is not ready" if model else "no model is ready") + (f": {why}" if why else "")
        return RequestError(ErrorCode.NOT_READY, text, retry_after=5.0)

    def _row(self, request: Request, row: Row, now: float) -> Outgoing:
        choice = request.choices[row.choice] if 0 <= row.choice < len(request.choices) else None
        if choice is None or choice.finish is not Finish.RUNNING:
            return []
        have = len(choice.tokens)
        if row.first_index != have:
            seen = row.first_index + len(row.tokens) <= have and row.finish is Finish.RUNNING
            return [] if seen else self._redispatch(request, "gap", now)
        request.heard_at = now
        request.prompt_tokens = request.prompt_tokens or row.prompt_tokens
        if choice.cached_tokens < 0:
            choice.cached_tokens = row.cached_tokens
        if row.tokens:
            if request.first_token_at is None:
                request.first_token_at = now
                self._observer.first_token(request, now)
            if choice.last_at:
                self._observer.gap(request, now - choice.last_at)
            choice.last_at = now
        request.add(choice, row.tokens, row.text, row.finish, row.stop_reason, row.reasoning)
        if not request.unfinished:
            return self._end(request, None, now)
        if request.streaming:
            if request.pending_chars > self._limits.max_pending_chars and request.blocked_since is not None:
                return self._end(request, RequestError(ErrorCode.CANCELLED, "the client reads too slowly"), now)
            request.wake()
        return []

    def _redispatch(self, request: Request, reason: str, now: float, delay: float = 0.0) -> Outgoing:
        """Begins the next attempt, or ends the request if there were too many."""
        out = self._withdraw(request)
        if request.tries >= self._limits.max_attempts:
            text = f"the request was lost {request.tries} times on its way, the last time because: {reason}"
            self._end(request, RequestError(ErrorCode.REPLICA_LOST, text, retry_after=5.0), now)
            return out
        request.attempt += 1
        request.phase, request.routed = RequestPhase.WAITING, None
        request.due = now + (delay if request.tries <= 1 else min(5.0, 0.125 * 2**request.tries))
        request.give_up = request.deadline
        self._observer.redispatched(request, reason)
        return out + self._try(request, now)

    def _try_later(self, request: Request, error: RequestError, now: float) -> Outgoing:
        """A refusal that time may cure: tries again at no charge, until the request's waiting time is over."""
        if now >= request.give_up:
            return self._end(request, error, now)
        request.attempt += 1
        request.tries -= 1
        request.phase, request.routed = RequestPhase.WAITING, None
        shortest, longest = _RETRY_LATER
        request.due = now + min(longest, max(shortest, error.retry_after or 0.0))
        return []

    def _withdraw(self, request: Request) -> Outgoing:
        if request.phase is RequestPhase.WAITING:
            return []
        return [Cancel.of((request.request_id, -1, request.attempt))]

    def _end(self, request: Request, error: RequestError | None, now: float) -> Outgoing:
        """The one way out. What may still run somewhere is cancelled."""
        normal = error is None and all(choice.finish is not Finish.CANCELLED for choice in request.choices)
        out = [] if normal else self._withdraw(request)
        del self._requests[request.request_id]
        request.end(error)
        self._observer.ended(request, now)
        return out

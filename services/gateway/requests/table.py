"""The life of every request in work, as a pure state machine.

    open ──▶ WAITING ──a replica is ready──▶ ROUTING ──Routed──▶ RUNNING ──last choice's end──▶ ENDED
                ▲                               │                   │
                └──── attempt + 1, back-off ────┴── lost, gap, … ◀──┘

`RequestTable` takes what comes off the bus, changes of presence and ticks of a clock. It writes what clients may read
into `LiveRequest`s and returns the messages to publish. Whatever is lost, doubled, late or dead on the way, a choice's
text has no gap and no repetition, and it ends exactly once: with a `Finish`, or with its request's error.
"""

from collections.abc import Iterator

import numpy as np

from radixmesh.services.gateway.errors import invalid, unknown_model
from radixmesh.services.gateway.requests.ports import Limits, Load, Mesh, Observer
from radixmesh.services.gateway.requests.request import LiveRequest, Phase, Row, rows_of
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Cancel, Finish, RequestFailed, Routed, Submit, TextBatch

Outgoing = list[Submit | Cancel]

DEFAULTED = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty"})
"""Sampling fields for which a model may have defaults of its own."""

_SOON, _LATER = 0.1, 2.0
"""Seconds between two looks at the requests: while one of them is still on its way to a replica, and otherwise."""

_SETTLE = 4.0
"""Seconds of silence before a running request is looked into."""
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
        self._live: dict[str, LiveRequest] = {}
        self._departed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveRequest]:
        return iter(list(self._live.values()))

    def get(self, request_id: str) -> LiveRequest | None:
        return self._live.get(request_id)

    # -- the client's side --

    def open(self, live: LiveRequest, now: float) -> Outgoing:
        """Takes a request in.

        Raises:
            RequestError: too many are in work, or no such model.
        """
        if len(self._live) >= self._limits.max_inflight:
            text = f"the gateway already has {self._limits.max_inflight} prompts in work, its limit"
            raise RequestError(ErrorCode.QUEUE_FULL, text, retry_after=1.0)
        if self._mesh.unknown(live.submit.model):
            raise self._not_served(live)
        self._live[live.request_id] = live
        live.started_at = now
        live.give_up = min(live.deadline, now + self._limits.ready_wait)
        return self._try(live, now)

    def cancel(self, request_id: str, now: float) -> Outgoing:
        """Nobody waits for the request any more. Does nothing if it has ended."""
        live = self._live.get(request_id)
        if live is None:
            return []
        return self._end(live, RequestError(ErrorCode.CANCELLED, "the client has gone"), now)

    def abort(self, request_id: str, now: float) -> Outgoing | None:
        """Ends the request as it stands: open choices finish as CANCELLED. None if there is no such request."""
        live = self._live.get(request_id)
        if live is None:
            return None
        for choice in live.choices:
            if choice.finish is Finish.RUNNING:
                live.add(choice, [], "", Finish.CANCELLED, None)
        return self._end(live, None, now)

    def fail(self, request_id: str, error: RequestError, now: float) -> Outgoing:
        """Ends the request with `error`, if it has not ended."""
        live = self._live.get(request_id)
        return [] if live is None else self._end(live, error, now)

    # -- from the bus --

    def routed(self, message: Routed, now: float) -> Outgoing:
        live = self._live.get(message.request_id)
        if live is None or message.attempt != live.attempt or live.phase is not Phase.ROUTING:
            return []
        live.phase, live.routed, live.heard_at = Phase.RUNNING, message, now
        live.prompt_tokens = live.prompt_tokens or message.prompt_tokens
        self._observer.routed(live, message)
        for instance, epoch in _dependencies(message):
            if self._departed.get(instance, -1) >= epoch:
                return self._redispatch(live, "lost", now)
        return []

    def text(self, batch: TextBatch, now: float) -> Outgoing:
        """Takes in one row per choice; rows of ended requests, old attempts and seen tokens are dropped."""
        out: Outgoing = []
        for row in rows_of(batch):
            live = self._live.get(row.request_id)
            if live is not None and row.attempt == live.attempt and live.phase is not Phase.WAITING:
                out += self._row(live, row, now)
        return out

    def failed(self, message: RequestFailed, now: float) -> Outgoing:
        """Another service gave up. Sends the request round again if that can help, else ends it."""
        live = self._live.get(message.request_id)
        if live is None or message.attempt != live.attempt or live.phase is Phase.WAITING:
            return []
        if 0 <= message.choice < len(live.choices) and live.choices[message.choice].finish is not Finish.RUNNING:
            return []
        if message.code is ErrorCode.REPLICA_LOST:
            return self._redispatch(live, "replica_lost", now)
        error = RequestError(message.code, message.message, param=message.param, retry_after=message.retry_after)
        # The tokenizer may see presence later than we do, and a request that is under way must not end because the
        # replica that takes it over is busy, or because a more important one took its place.
        begun = live.output_tokens > 0
        if begun:
            live.give_up = live.deadline
        full = message.code is ErrorCode.QUEUE_FULL and (begun or live.attempt > 0)
        if full or message.code is ErrorCode.NOT_READY:
            return self._try_later(live, error, now)
        return self._end(live, error, now)

    def cancelled_elsewhere(self, message: Cancel, now: float) -> Outgoing:
        """Another gateway's `Cancel`, of whole requests: ends those of them that are ours."""
        out: Outgoing = []
        for request_id, choice, attempt in zip(
            message.request_ids, message.choices.tolist(), message.attempts.tolist(), strict=True
        ):
            live = self._live.get(request_id)
            if live is not None and choice < 0 and attempt >= live.attempt:
                out += self.abort(request_id, now) or []
        return out

    # -- presence and time --

    def pause(self, now: float) -> float:
        """Seconds until `tick` may have something to do. A look wakes the process, which costs more than the look."""
        lives = self._live.values()
        if any(live.phase is not Phase.RUNNING for live in lives):
            return _SOON
        first = min((live.deadline for live in lives), default=now + _LATER)
        return min(max(first - now, 0.0), _LATER)

    def gone(self, instance: str, epoch: int, now: float) -> Outgoing:
        """A member left in this epoch. Its requests go round again."""
        self._departed[instance] = max(epoch, self._departed.pop(instance, -1))
        while len(self._departed) > _DEPARTED_KEPT:
            self._departed.pop(next(iter(self._departed)))
        out: Outgoing = []
        for live in self:
            if live.phase is Phase.RUNNING and live.routed is not None:
                lost = [name for name, held in _dependencies(live.routed) if name == instance and held <= epoch]
                out += self._redispatch(live, "lost", now) if lost else []
        return out

    def came(self, instance: str, epoch: int) -> None:
        """A member is there (again). One that was only silent for long comes back in the epoch it had."""
        if self._departed.get(instance, -1) >= epoch:
            del self._departed[instance]

    def mesh_changed(self, now: float) -> Outgoing:
        """Someone became ready: waiting requests try again."""
        return [sent for live in self if live.phase is Phase.WAITING for sent in self._try(live, now)]

    def reconnected(self, now: float) -> Outgoing:
        """The bus was away and may have lost anything: all that is out there goes round again, at no charge."""
        out: Outgoing = []
        for live in self:
            if live.phase in (Phase.ROUTING, Phase.RUNNING):
                live.tries -= 1
                out += self._redispatch(live, "reconnected", now, _AFTER_RECONNECT)
        return out

    def tick(self, now: float) -> Outgoing:
        """Acts on deadlines and timeouts. Call it again after `pause`, or when a request or a member has come."""
        return [sent for live in self for sent in self._tick(live, now)]

    def _tick(self, live: LiveRequest, now: float) -> Outgoing:
        if now >= live.deadline:
            text = f"the request did not end within {live.deadline - live.started_at:g} s"
            return self._end(live, RequestError(ErrorCode.DEADLINE_EXCEEDED, text), now)
        if live.blocked_since is not None and now - live.blocked_since > self._limits.client_timeout:
            return self._end(live, RequestError(ErrorCode.CANCELLED, "the client does not read its stream"), now)
        if live.phase is Phase.WAITING:
            return self._try(live, now)
        if not self._mesh.reachable():
            return []  # silence proves nothing; `reconnected` sees to it
        if live.phase is Phase.ROUTING:
            return self._redispatch(live, "route_timeout", now) if now >= live.due else []
        reason = self._stalled(live, now)
        return self._redispatch(live, reason, now) if reason else []

    def _stalled(self, live: LiveRequest, now: float) -> str:
        """Why a running request will hear nothing more, if so. Silence proves nothing while it may be queued."""
        quiet = now - live.heard_at
        if quiet < _SETTLE or live.routed is None:
            return ""
        load = self._mesh.load(live.routed.replica_id, quiet)
        if load is not None and not load.running and not load.waiting:
            return "forgotten"
        gone = [name for name, epoch in _dependencies(live.routed) if not self._mesh.alive(name, epoch)]
        if gone and quiet >= self._limits.route_timeout:
            return "lost"
        if quiet < self._limits.stall_timeout or _may_be_queued(live, load):
            return ""
        return "stalled"

    # -- one request --

    def _try(self, live: LiveRequest, now: float) -> Outgoing:
        """Submits a waiting request if its time has come and someone can take it."""
        if now < live.due:
            return []
        if live.attempt == 0 and (model := self._mesh.named(live.submit.model)) != live.submit.model:
            live.submit = live.submit.model_copy(update={"model": model})  # it came before any model was known
        if self._mesh.missing(live.submit.model):
            return self._end(live, self._not_served(live), now) if now >= live.give_up else []
        if live.attempt == 0:
            self._settle_sampling(live)
        live.phase, live.routed = Phase.ROUTING, None
        live.due = now + self._limits.route_timeout
        live.tries += 1
        return [live.resubmit(now)]

    def _settle_sampling(self, live: LiveRequest) -> None:
        """Fills in the model's defaults, which are known by the time of the first attempt, and stay for all others."""
        defaults = self._mesh.sampling_defaults(live.submit.model).items()
        unset = {name: value for name, value in defaults if name in DEFAULTED and name not in live.chosen}
        if unset:
            work = live.submit.work
            work = work.model_copy(update={"params": work.params.model_copy(update=unset)})
            live.submit = live.submit.model_copy(update={"work": work})

    def _not_served(self, live: LiveRequest) -> RequestError:
        model = live.submit.model
        if self._mesh.unknown(model):
            if not model:
                return invalid("model: required, as there are several", "model")
            return unknown_model(model)
        why = self._mesh.missing(model)
        text = (f"{model!r} is not ready" if model else "no model is ready") + (f": {why}" if why else "")
        return RequestError(ErrorCode.NOT_READY, text, retry_after=5.0)

    def _row(self, live: LiveRequest, row: Row, now: float) -> Outgoing:
        choice = live.choices[row.choice] if 0 <= row.choice < len(live.choices) else None
        if choice is None or choice.finish is not Finish.RUNNING:
            return []
        have = len(choice.tokens)
        if row.first_index != have:
            seen = row.first_index + len(row.tokens) <= have and row.finish is Finish.RUNNING
            return [] if seen else self._redispatch(live, "gap", now)
        live.heard_at = now
        live.prompt_tokens = live.prompt_tokens or row.prompt_tokens
        if choice.cached_tokens < 0:
            choice.cached_tokens = row.cached_tokens
        if row.tokens:
            if live.first_token_at is None:
                live.first_token_at = now
                self._observer.first_token(live, now)
            if choice.last_at:
                self._observer.gap(live, now - choice.last_at)
            choice.last_at = now
        live.add(choice, row.tokens, row.text, row.finish, row.stop_reason, row.reasoning)
        if not live.unfinished:
            return self._end(live, None, now)
        if live.streaming:
            if live.pending_chars > self._limits.max_pending_chars and live.blocked_since is not None:
                return self._end(live, RequestError(ErrorCode.CANCELLED, "the client reads too slowly"), now)
            live.wake()
        return []

    def _redispatch(self, live: LiveRequest, reason: str, now: float, delay: float = 0.0) -> Outgoing:
        """Begins the next attempt, or ends the request if there were too many."""
        out = self._withdraw(live)
        if live.tries >= self._limits.max_attempts:
            text = f"the request was lost {live.tries} times on its way, the last time because: {reason}"
            self._end(live, RequestError(ErrorCode.REPLICA_LOST, text, retry_after=5.0), now)
            return out
        live.attempt += 1
        live.phase, live.routed = Phase.WAITING, None
        live.due = now + (delay if live.tries <= 1 else min(5.0, 0.125 * 2**live.tries))
        live.give_up = live.deadline
        self._observer.redispatched(live, reason)
        return out + self._try(live, now)

    def _try_later(self, live: LiveRequest, error: RequestError, now: float) -> Outgoing:
        """A refusal that time may cure: tries again at no charge, until the request's waiting time is over."""
        if now >= live.give_up:
            return self._end(live, error, now)
        live.attempt += 1
        live.tries -= 1
        live.phase, live.routed = Phase.WAITING, None
        shortest, longest = _RETRY_LATER
        live.due = now + min(longest, max(shortest, error.retry_after or 0.0))
        return []

    def _withdraw(self, live: LiveRequest) -> Outgoing:
        if live.phase is Phase.WAITING:
            return []
        return [Cancel(request_ids=[live.request_id], choices=np.array([-1]), attempts=np.array([live.attempt]))]

    def _end(self, live: LiveRequest, error: RequestError | None, now: float) -> Outgoing:
        """The one way out. What may still run somewhere is cancelled."""
        normal = error is None and all(choice.finish is not Finish.CANCELLED for choice in live.choices)
        out = [] if normal else self._withdraw(live)
        del self._live[live.request_id]
        live.end(error)
        self._observer.ended(live, now)
        return out


def _may_be_queued(live: LiveRequest, load: Load | None) -> bool:
    """Whether a choice may be among those that wait: for its first slot, or, with tokens, for another one."""
    if load is None:
        return not live.output_tokens
    having = {bool(choice.tokens) for choice in live.choices if choice.finish is Finish.RUNNING}
    return (True in having and load.begun > 0) or (False in having and load.waiting > load.begun)


def _dependencies(routed: Routed) -> tuple[tuple[str, int], tuple[str, int]]:
    """The (instance, epoch) of those whose death loses the request."""
    return (routed.replica_id, routed.replica_epoch), (routed.detokenizer_id, routed.detokenizer_epoch)

"""The scheduler's logic: messages in, plans and effects out. It knows no bus and no clock.

admit, cancel, report, prepared, tick   take in what happened
next_prepare, and then next_plan        say what the worker group prepares and does, while the pipeline has room
take_effects                            says what else is to be sent
"""

from collections import deque
from collections.abc import Callable

from radixmesh.services.scheduler import intake
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.memory.radix_node import Listener
from radixmesh.services.scheduler.outgoing import Effect, already_complete, failed
from radixmesh.services.scheduler.planning.plan_builder import SentPlan
from radixmesh.services.scheduler.planning.planner import Planner
from radixmesh.services.scheduler.planning.reports import WorkerOutOfStep, apply_report, check_report, fail_overruns
from radixmesh.services.scheduler.queue.preparation import Preparation
from radixmesh.services.scheduler.replica import QueueWatcher, Replica
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Admit, Cancel, Claimed, Prepare, Prepared, StepPlan, StepReport

DEADLINE_GRACE = 1.0
"""Seconds that a running sequence may go on behind its deadline: the gateway, which gives up then, cancels it."""

HEAD_START = 0.02
"""Seconds before the worker is through with what it has, at which a plan of several steps is followed by the next."""

_PLAN_MARGIN = 32 << 10
_ROW_BYTES = 32


class SchedulerCore:
    """One replica, for the time of one claim.

    Args:
        epoch: the claim's.
        max_payload: bytes that fit into one message.
        watcher: told of the queue's comings and goings.
        listener: told of what the prefix cache stores and removes.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        sizes: Claimed,
        *,
        replica_id: str,
        epoch: int,
        max_payload: int = 1 << 20,
        watcher: QueueWatcher | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.epoch = epoch
        self.replica = Replica(settings, sizes, replica_id, epoch, watcher, listener)
        self.in_flight: deque[SentPlan] = deque()
        self._replica_id = replica_id
        self._depth = settings.pipeline_depth
        self._starvation = settings.starvation_seconds
        overhead = _PLAN_MARGIN + _ROW_BYTES * sizes.max_slots
        self._planner = Planner(self.replica, epoch, max(max_payload - overhead, max_payload // 4))
        self._cancels = intake.CancelLog()
        self._order = 0
        self._through_at = 0.0
        """When the worker will be through with the plans in flight, as far as that is known."""

    # -- what happened --

    def admit(self, admit: Admit, now: float) -> None:
        """Queues a request's choices. Those of an attempt that is known or cancelled are passed over.

        Raises:
            RequestError: the request cannot run here; none of its choices was queued, and nothing was displaced.
        """
        replica = self.replica
        intake.check_task(admit)
        choices = [choice for choice in intake.wanted_choices(admit) if self._wanted(admit, choice.index)]
        if not choices:
            return
        intake.check_prompt(admit, replica)
        intake.check_needs(admit, replica)
        seqs = intake.new_sequences(admit, choices, replica, self._order, now)
        known = replica.requests.get(admit.request_id, {})
        older = [known[seq.choice] for seq in seqs if seq.choice in known]
        for displaced in intake.make_room(replica, [seq for seq in seqs if not seq.complete], len(older)):
            self._displace(displaced, now)
        self._order += len(seqs)
        for seq in older:
            replica.end(seq, now, "superseded")
        for seq in seqs:
            if seq.complete:
                self._complete(seq)
            else:
                replica.add(seq)

    def cancel(self, cancel: Cancel, now: float) -> None:
        """Ends choices that nobody waits for; their slots and pages come back with the next plan."""
        for request_id, choice, attempt in zip(
            cancel.request_ids, cancel.choices.tolist(), cancel.attempts.tolist(), strict=False
        ):
            self._cancels.note(request_id, choice, attempt)
            for seq in list(self.replica.requests.get(request_id, {}).values()):
                if choice in (-1, seq.choice) and seq.attempt <= attempt:
                    self.replica.end(seq, now, "cancelled")

    def report(self, report: StepReport, now: float) -> None:
        """Takes in what came of the oldest plan in flight. Reports of other epochs, or seen before, are dropped.

        Raises:
            WorkerOutOfStep: a report is missing or malformed; the caller must give up this epoch.
        """
        if report.epoch != self.epoch or report.seq <= self.replica.reported_seq:
            return
        if not self.in_flight or self.in_flight[0].seq != report.seq:
            raise WorkerOutOfStep(f"report {report.seq} came after report {self.replica.reported_seq}")
        plan = self.in_flight.popleft()
        check_report(report, plan)
        apply_report(self.replica, plan, report, now)
        self._through_at = now + sum(self.replica.seconds(plan.steps) for plan in self.in_flight)

    def prepared(self, message: Prepared, now: float) -> None:
        """Takes in what came of a preparation on one rank. Those of other epochs, or settled before, are dropped."""
        if message.epoch != self.epoch:
            return
        ready, failed = self.replica.preparations.answered(message)
        for seq in ready:
            self.replica.prepared(seq, now)
        if failed is not None:
            self._fail_users(failed, now)

    def tick(self, now: float) -> None:
        """Call about once a second: deadlines, ageing of what waits, and what must be asked for again."""
        self.replica.queue.promote(now - self._starvation)
        self.replica.preparations.tick(now)
        fail_overruns(self.replica, now)
        text = "the request's deadline passed before it was done"
        self._fail_where(lambda seqs: any(_late(seq, now) for seq in seqs), ErrorCode.DEADLINE_EXCEEDED, text, now)
        if longest := self.replica.settings.queue_timeout:
            text = f"the request waited {longest:g} s in the queue without being begun"
            self._fail_where(lambda seqs: _unbegun(seqs, now - longest), ErrorCode.DEADLINE_EXCEEDED, text, now)

    def gateway_gone(self, gateway_id: str, now: float) -> None:
        """Nobody waits any more for what that gateway asked for; if it lives after all, it will ask again."""
        text = f"{gateway_id} was not heard of any more"
        self._fail_where(lambda seqs: seqs[0].gateway_id == gateway_id, ErrorCode.REPLICA_LOST, text, now)

    def lost(self, text: str, now: float) -> None:
        """The epoch is over: every request fails with REPLICA_LOST, and its gateway sends it round again."""
        self._fail_where(lambda _seqs: True, ErrorCode.REPLICA_LOST, text, now)

    def hand_back_waiting(self, text: str, now: float) -> None:
        """Requests of which nothing runs fail with REPLICA_LOST, so that another replica can take them."""
        self._fail_where(lambda seqs: all(seq.slot < 0 for seq in seqs), ErrorCode.REPLICA_LOST, text, now)

    # -- what is to be done --

    def next_prepare(self, now: float) -> Prepare | None:
        """What every rank of the group is to be asked for; None if there is nothing more."""
        replica = self.replica
        message, ready = replica.preparations.next(replica.queue, replica.reported_seq, now)
        for seq in ready:
            self.replica.prepared(seq, now)
        return message

    def plan_delay(self, now: float) -> float:
        """Seconds for which the next plan should be held back; 0: it is time.

        A plan of several steps keeps the worker busy for long, and who comes meanwhile waits for all plans that were
        sent. So the one behind it is made shortly before it is needed, and at once when someone comes.
        """
        replica, ahead = self.replica, len(self.in_flight)
        if (
            not 0 < ahead < self._depth
            or self.in_flight[-1].steps < 2
            or replica.queue.admissible
            or replica.prefilling
        ):
            return 0.0
        return max(0.0, self._through_at - now - HEAD_START)

    def next_plan(self, now: float) -> StepPlan | None:
        """The next plan; None if the pipeline is full or there is nothing to do."""
        if len(self.in_flight) >= self._depth:
            return None
        made = self._planner.next(now)
        if made is None:
            return None
        plan, in_flight = made
        self.in_flight.append(in_flight)
        self._through_at = max(now, self._through_at) + self.replica.seconds(plan.steps)
        return plan

    def take_effects(self) -> list[Effect]:
        """What is to be sent, in order; each once."""
        effects, self.replica.effects = self.replica.effects, []
        return effects

    @property
    def idle(self) -> bool:
        """Nothing waits, runs, or is in flight."""
        return not (self.replica.requests or self.in_flight or self.replica.releases)

    def flush(self) -> tuple[int, int]:
        """Forgets the prefix cache. Returns pages freed, and pages that running sequences hold."""
        freed = self.replica.kv.flush()
        return freed, self.replica.kv.total - self.replica.kv.free

    def check(self) -> list[str]:
        """What is wrong with the memory's books, one sentence each."""
        return self.replica.check()

    def repair(self) -> None:
        """Starts the memory's books anew, with an empty cache. Only when `idle`."""
        self.replica.kv.reset()

    # -- inside --

    def _wanted(self, admit: Admit, choice: int) -> bool:
        known = self.replica.requests.get(admit.request_id, {}).get(choice)
        if known is not None and known.attempt >= admit.attempt:
            return False
        return not self._cancels.covers(admit.request_id, choice, admit.attempt)

    def _complete(self, seq: Sequence) -> None:
        effect = already_complete(
            seq.detokenizer_id, self._replica_id, self.epoch, seq.request_id, seq.choice, seq.attempt, seq.resumed
        )
        self.replica.effects.append(effect)

    def _fail_where(self, condition: Callable[[list[Sequence]], bool], code: ErrorCode, text: str, now: float) -> None:
        """Fails the requests whose choices meet the condition; their gateways are told once for each."""
        for choices in list(self.replica.requests.values()):
            seqs = list(choices.values())
            if condition(seqs):
                self._fail(seqs, now, RequestError(code, text))

    def _fail(self, seqs: list[Sequence], now: float, error: RequestError) -> None:
        """Ends all choices of a request that have not ended, and tells its gateway once."""
        for seq in seqs:
            self.replica.end(seq, now, error.code)
        first = seqs[0]
        self.replica.effects.append(failed(first.gateway_id, first.request_id, first.attempt, error))

    def _fail_users(self, preparation: Preparation, now: float) -> None:
        """Ends the requests that need what could not be prepared."""
        why = preparation.failure
        assert why is not None  # noqa: S101
        assert why.code is not None  # noqa: S101
        error = RequestError(why.code, why.message, param=why.param, retry_after=why.retry_after)
        for request_id in dict.fromkeys(seq.request_id for seq in preparation.users):
            self._fail(list(self.replica.requests[request_id].values()), now, error)

    def _displace(self, seqs: list[Sequence], now: float) -> None:
        text = "the queue is full, and a request of higher priority took this one's place"
        retry_after = self.replica.rate.seconds_for(len(self.replica.queue))
        self._fail(seqs, now, RequestError(ErrorCode.QUEUE_FULL, text, retry_after=retry_after))


def _unbegun(seqs: list[Sequence], before: float) -> bool:
    """Whether none of them ever had a slot, though they came `before` then."""
    return all(seq.admissions == 0 and seq.arrived_at < before for seq in seqs)


def _late(seq: Sequence, now: float) -> bool:
    return now > seq.deadline + (DEADLINE_GRACE if seq.slot >= 0 else 0.0)

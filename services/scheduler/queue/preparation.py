"""What waiting sequences need before they can be admitted, and what the worker group has of it.

    add ── a place for each need ── Prepare ─▶ ... ─▶ Prepared by every rank ── prepared: may be admitted ── remove
                                       the result is kept behind its last use, until its place is wanted

The group keeps so many results of a kind as it said (`Claimed.prepares`); whose place another one takes is said here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.messages import Claimed, Need, Prepare, Prepared

ASK_AGAIN = 5.0
"""Seconds without all ranks' answers, after which a `Prepare` is sent once more: it, or an answer, may be lost."""

SCAN = 128
"""Sequences for which places are looked for at once, at most."""

_NEVER = 1 << 62


@dataclass(slots=True, eq=False)
class Preparation:
    """A result that the group has, or was asked for."""

    need: Need
    message: Prepare
    asked_at: float
    users: dict[Sequence, None] = field(default_factory=dict)
    """Sequences, waiting or running, that need it."""
    answers: dict[int, Prepared] = field(default_factory=dict)
    """By rank."""
    settled: bool = False
    """All ranks have answered."""
    failure: Prepared | None = None
    last_plan: int = -1
    """Behind its last use: a plan in which it may still be used."""


class _Places:
    """The results of one kind."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        """Places of results, whether these are there yet, have failed, or are needed no more."""
        self.by_key: dict[str, Preparation] = {}
        """Those that have not failed."""
        self.idle: dict[Preparation, None] = {}
        """Those that nobody needs now, least recently used first."""
        self.failed: list[int] = []
        """Numbers of those whose places may be had."""

    def take(self) -> int:
        """A place, where there is room: the number of the result that has it now, or -1."""
        if self.failed:
            return self.failed.pop()
        if self.used < self.most:
            self.used += 1
            return -1
        oldest = next(iter(self.idle))
        del self.idle[oldest], self.by_key[oldest.need.key]
        return oldest.message.number

    def has_room(self, reported_seq: int) -> bool:
        """Whether there is a place, or a result that nobody needs, nor any plan behind `reported_seq`."""
        return bool(self.failed) or self.used < self.most or self.next_at <= reported_seq

    @property
    def next_at(self) -> int:
        """The plan whose report makes room, if no more is needed for it."""
        return next((preparation.last_plan for preparation in self.idle), _NEVER)


class Preparations:
    """The books of what a worker group prepares.

    Args:
        level: of a sequence in the queue: see `Policy.level`.
    """

    def __init__(self, sizes: Claimed, replica_id: str, epoch: int, level: Callable[[Sequence], int]) -> None:
        self._replica_id = replica_id
        self._epoch = epoch
        self._level = level
        self._ranks = sizes.ranks
        self._places = {kind: _Places(most) for kind, most in sizes.prepares.items()}
        self._unsettled: dict[int, Preparation] = {}
        """By number: those that not all ranks have answered."""
        self._number = -1
        self._unplaced: dict[Sequence, None] = {}
        """Waiting sequences without places for all that they need."""
        self._uses: dict[Sequence, list[Preparation]] = {}
        """By sequence with places: what it needs."""
        self._asks: list[Prepare] = []
        self._changed = False
        """Something has happened that may have made room since it was last looked for."""
        self._look_at = _NEVER
        """A plan whose report makes room."""
        self.prepared = 0
        """Results so far."""
        self.failures = 0
        """Results so far that could not be made."""
        self.seconds = 0.0
        """What all these took, each on its slowest rank."""

    def lacks(self, needs: tuple[Need, ...]) -> Need | None:
        """One that the group does not prepare."""
        return next((need for need in needs if need.kind not in self._places), None)

    def add(self, seq: Sequence) -> None:
        """A sequence waits that needs something."""
        self._unplaced[seq] = None
        self._changed = True

    def remove(self, seq: Sequence, planned_seq: int) -> None:
        """A sequence is over, which may still be in plans up to `planned_seq`."""
        self._unplaced.pop(seq, None)
        for preparation in self._uses.pop(seq, ()):
            preparation.last_plan = planned_seq
            del preparation.users[seq]
            self._rest(preparation)
        self._changed = True

    def tick(self, now: float) -> None:
        """Call about once a second: asks again, and heeds what has been promoted."""
        self._changed = True
        for preparation in self._unsettled.values():
            if now - preparation.asked_at > ASK_AGAIN:
                preparation.asked_at = now
                self._asks.append(preparation.message)

    def next(self, queue: Iterable[Sequence], reported_seq: int, now: float) -> tuple[Prepare | None, list[Sequence]]:
        """What the group is to be asked for now, and who needs to wait no longer as the results are there.

        Args:
            queue: all that wait, in the order in which they get places.
        """
        ready: list[Sequence] = []
        while self._unplaced and (self._changed or reported_seq >= self._look_at):
            ready += self._place(self._first_unplaced(queue), reported_seq, now)
        return (self._asks.pop(0) if self._asks else None), ready

    def answered(self, message: Prepared) -> tuple[list[Sequence], Preparation | None]:
        """Takes in an answer. Returns who needs to wait no longer, and what has failed by it."""
        preparation = self._unsettled.get(message.number)
        if preparation is None or not 0 <= message.rank < self._ranks:
            return [], None
        places = self._places[preparation.need.kind]
        preparation.answers[message.rank] = message
        failed = None
        if message.code is not None and preparation.failure is None:
            preparation.failure, failed = message, preparation
            self.failures += 1
            del places.by_key[preparation.need.key]
        if len(preparation.answers) < self._ranks:
            return [], failed
        preparation.settled = self._changed = True
        self.seconds += max(answer.seconds for answer in preparation.answers.values())
        del self._unsettled[message.number]
        if preparation.failure is not None:
            places.failed.append(message.number)
            return [], failed
        self.prepared += 1
        self._rest(preparation)
        return [seq for seq in preparation.users if self._is_prepared(seq)], None

    def check(self) -> list[str]:
        """What is wrong with the books, one sentence each; for tests, as nobody could make them anew."""
        problems = []
        for kind, places in self._places.items():
            counted = len(places.by_key) + len(places.failed)
            counted += sum(p.failure is not None for p in self._unsettled.values() if p.need.kind == kind)
            if places.used > places.most or places.used != counted:
                problems.append(f"{places.used} of {places.most} places for {kind} are used, by {counted} results")
            idle = {p for p in places.by_key.values() if p.settled and not p.users}
            if set(places.idle) != idle:
                problems.append(f"{len(idle)} results of {kind} are idle, and {len(places.idle)} count as such")
        return problems

    # -- inside --

    def _first_unplaced(self, queue: Iterable[Sequence]) -> list[Sequence]:
        return list(islice((seq for seq in queue if seq in self._unplaced), min(SCAN, len(self._unplaced))))

    def _place(self, seqs: list[Sequence], reported_seq: int, now: float) -> list[Sequence]:
        """Gives places to those who can have them, in this order. Returns those who have all they need at once."""
        self._changed = False
        ready = []
        barred: dict[str, Sequence] = {}
        """By kind: the first that found no place. Those behind it must not take what comes free."""
        for seq in seqs:
            if any(self._gives_way(seq, barred.get(need.kind)) for need in seq.needs):
                continue
            lacking = [need for need in seq.needs if need.key not in self._places[need.kind].by_key]
            if all(self._places[need.kind].has_room(reported_seq) for need in lacking):
                self._use(seq, lacking, now)
                if self._is_prepared(seq):
                    ready.append(seq)
            else:
                for need in seq.needs:
                    barred.setdefault(need.kind, seq)
        self._changed = len(seqs) == SCAN and any(seq in self._uses for seq in seqs)  # those behind may find some too
        full = (self._places[kind] for kind in barred if not self._places[kind].has_room(reported_seq))
        self._look_at = min((places.next_at for places in full), default=_NEVER)
        return ready

    def _gives_way(self, seq: Sequence, first: Sequence | None) -> bool:
        """Whether `seq` must leave what it needs to `first`, which stands before it."""
        return first is not None and (first.promoted or self._level(seq) > self._level(first))

    def _use(self, seq: Sequence, lacking: list[Need], now: float) -> None:
        for need in lacking:
            self._ask(need, seq, now)
        del self._unplaced[seq]
        self._uses[seq] = [self._places[need.kind].by_key[need.key] for need in seq.needs]
        for preparation in self._uses[seq]:
            preparation.users[seq] = None
            self._places[preparation.need.kind].idle.pop(preparation, None)

    def _ask(self, need: Need, seq: Sequence, now: float) -> None:
        """Begins what `seq` needs, in a place that there is."""
        places = self._places[need.kind]
        self._number += 1
        message = Prepare(
            epoch=self._epoch,
            number=self._number,
            replica_id=self._replica_id,
            kind=need.kind,
            work=seq.work.only(need.kind),
            replaces=places.take(),
        )
        places.by_key[need.key] = self._unsettled[self._number] = Preparation(need, message, now)
        self._asks.append(message)

    def _is_prepared(self, seq: Sequence) -> bool:
        return all(preparation.settled for preparation in self._uses[seq])

    def _rest(self, preparation: Preparation) -> None:
        """Its place may be had, if it is there and nobody needs it."""
        if preparation.settled and preparation.failure is None and not preparation.users:
            self._places[preparation.need.kind].idle[preparation] = None

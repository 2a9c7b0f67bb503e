"""Which worker group is ours, or could be; and whether what we send it arrives."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from radixmesh.services.scheduler.memory.kv import unfit_groups
from radixmesh.shared.messages import Claimed, Presence

PATIENCE = 3.0
"""Seconds for which heartbeats must show a plan or report missing before it is given up."""

_MIN_BEATS = 3


def is_speaker(member: Presence) -> bool:
    """Whether this is rank 0 of a worker group, which answers claims."""
    return member.service == "model_worker" and member.attributes.get("rank") == 0


def claimable(ready: Iterable[Presence], replica: str, instance: str) -> list[Presence]:
    """The groups' rank 0 that this scheduler may claim.

    Args:
        ready: ready members.
        replica: the name it is pinned to; a pinned scheduler takes groups pinned to that name only.
        instance: its replica id; a group pinned to that name is its own too, and so is one that it claimed before.
    """
    found = []
    for member in ready:
        pin, owner = member.attributes.get("replica", ""), member.attributes.get("claimed_by", "")
        if is_speaker(member) and pin in (replica, instance) and owner in ("", instance):
            found.append(member)
    return found


def wrong_sizes(sizes: Claimed) -> str:
    """What is wrong with a group's sizes; empty if nothing is."""
    for name in ("max_slots", "max_model_len", "vocab_size"):
        if getattr(sizes, name) < 1:
            return f"its {name} is {getattr(sizes, name)}"
    for kind, most in sizes.prepares.items():
        if most < 1:
            return f"it prepares {most} results of {kind}"
    return unfit_groups(sizes.groups)


class WorkerWatch:
    """Judges by heartbeats whether a claimed group is still ours and has what was sent.

    A plan counts as lost when the group is done with everything it has (reported == received) and still lacks it; a
    report when the group has sent it and it is not here. Both must last for `PATIENCE` seconds over several beats,
    so that neither long steps nor a backlog of old heartbeats look like a loss. A group that has been claimed in the
    middle of a long step goes on telling how far it is with the epoch before (`seq_epoch`), which proves nothing.
    """

    def __init__(
        self, worker: Presence, replica_id: str, epoch: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.instance = worker.instance
        self.model = worker.model
        self._worker_epoch = worker.epoch
        self._replica_id = replica_id
        self._epoch = epoch
        self._clock = clock
        self._doubts: dict[str, tuple[float, int]] = {}
        """By what seems wrong: since when, and how many beats have shown it."""

    def lost(self, now: Presence | None) -> str:
        """Why the group that `now` tells of is no longer there; empty if it is."""
        if now is None:
            return f"worker {self.instance} is gone"
        if now.epoch != self._worker_epoch:
            return f"worker {self.instance} has restarted"
        return ""

    def heard(self, beat: Presence, planned_seq: int, reported_seq: int) -> str:
        """Takes in a heartbeat; returns why this epoch must be given up, or an empty string.

        Args:
            planned_seq: the last plan sent.
            reported_seq: the last report that came.
        """
        if beat.instance != self.instance or beat.epoch != self._worker_epoch:
            return ""
        told = beat.attributes
        ours = told.get("claimed_by") == self._replica_id and told.get("claim_epoch") == self._epoch
        begun = ours and told.get("seq_epoch") == self._epoch
        received, reported = _number(told, "received_seq"), _number(told, "reported_seq")
        doubts = []
        if not ours:
            doubts.append("the worker no longer works for this replica")
        if begun and received == reported and received < planned_seq:
            doubts.append(f"the plan behind number {received} was lost")
        if begun and reported > reported_seq:
            doubts.append(f"the report behind number {reported_seq} was lost")
        now = self._clock()
        self._doubts = {text: self._doubts.get(text, (now, 0)) for text in doubts}
        for text, (since, beats) in self._doubts.items():
            self._doubts[text] = (since, beats + 1)
            if beats + 1 >= _MIN_BEATS and now - since > PATIENCE:
                return text
        return ""


def _number(attributes: dict[str, Any], name: str) -> int:
    value = attributes.get(name, -1)
    return value if isinstance(value, int) else -1

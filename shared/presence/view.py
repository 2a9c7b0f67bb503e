"""Who is in the mesh.

Every service sends a `Presence` heartbeat, answers `WhoIsThere` with one at once, and registers with the NATS micro
service protocol, so that ``nats micro ls`` shows the mesh. `PresenceView` is what a service knows of the others; it
fills within one round trip, whatever the order in which services start.
"""

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator

from radixmesh.shared.messages import Outdated, Presence, State

log = logging.getLogger(__name__)

MISSED_BEATS = 4
"""Heartbeats a service may miss before the others take it for dead. On a machine whose cores are all busy a beat
can come a second late; a dead process is usually announced by its supervisor long before."""


def until_beat(now: float, interval: float, host: str) -> float:
    """Seconds from the Unix time `now` to the next heartbeat: more than 0, at most `interval`.

    All services of one host beat at once, so that each of them is woken once for the beats of all; waking is what
    costs. Other hosts have other phases, so that a large mesh does not speak all at the same moment.
    """
    phase = zlib.crc32(host.encode()) / 2**32 * interval
    return interval - (now - phase) % interval


class PresenceView:
    """The live members of the mesh, by instance name.

    `on_change` callbacks get ``(before, now)``: (None, p) for a newcomer, (p, None) for one that has gone, (p, q) for
    a changed one. A new epoch under an old name is told as gone, then as new, so that listeners drop what they knew.
    `on_outdated` callbacks get what the sender of a heartbeat that was dropped for its epoch must be told.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._members: dict[str, Presence] = {}
        self._seen: dict[str, float] = {}
        self._forgiven_at = -math.inf
        self._departed: dict[str, int] = {}
        self._doubted: set[str] = set()
        self.on_change: list[Callable[[Presence | None, Presence | None], None]] = []
        self.on_outdated: list[Callable[[Outdated], None]] = []

    def __iter__(self) -> Iterator[Presence]:
        return iter(list(self._members.values()))

    def get(self, instance: str) -> Presence | None:
        return self._members.get(instance)

    def ready(self, service: str, model: str | None = None) -> list[Presence]:
        """Ready members of `service` (that serve `model`, if given), in the order of their names."""
        found = [
            member
            for member in self._members.values()
            if member.service == service
            and member.state is State.READY
            and member.instance not in self._doubted
            and (model is None or member.model == model)
        ]
        return sorted(found, key=lambda member: member.instance)

    def alive(self, instance: str, epoch: int) -> bool:
        """True if `instance` is there, in that very epoch."""
        member = self._members.get(instance)
        return member is not None and member.epoch == epoch

    def update(self, beat: Presence) -> None:
        """Takes in one heartbeat. Those of an older epoch, or of one already gone, are dropped: see `on_outdated`."""
        before = self._members.get(beat.instance)
        if before is not None and beat.epoch < before.epoch:
            self._outdated(beat, before.epoch, self._clock() - self._seen[beat.instance])
            return
        departed = self._departed.get(beat.instance, -1)
        if beat.epoch <= departed:
            self._outdated(beat, departed, None)
            return
        if beat.state is State.GONE:
            self._remove(beat.instance, beat.epoch)
            return
        if before is not None and beat.epoch > before.epoch:
            self._remove(beat.instance, before.epoch)
            before = None
        self._seen[beat.instance] = self._clock()
        self._members[beat.instance] = beat
        doubted = beat.instance in self._doubted
        self._doubted.discard(beat.instance)
        if doubted or before is None or before != beat:
            self._tell(before, beat)

    def expire(self) -> None:
        """Removes members whose heartbeats have stopped. Call about once a second."""
        now = self._clock()
        for instance, seen in list(self._seen.items()):
            member = self._members[instance]
            if now - max(seen, self._forgiven_at) > member.interval * MISSED_BEATS:
                log.warning("presence: %s has not been heard of for %.1f s", instance, now - seen)
                self._members.pop(instance)
                self._seen.pop(instance)
                self._doubted.discard(instance)
                self._tell(member, None)

    def forgive(self) -> None:
        """Counts everyone as just seen: for a listener that was itself asleep or off the bus."""
        self._forgiven_at = self._clock()

    def doubt(self) -> None:
        """After one's own reconnect: nobody counts as ready until heard again, for they may not be back yet.

        They stay alive meanwhile, and have their time to speak.
        """
        self.forgive()
        self._doubted = set(self._members)
        for member in list(self._members.values()):
            self._tell(member, member)

    def _remove(self, instance: str, epoch: int) -> None:
        self._departed[instance] = epoch
        while len(self._departed) > 4096:
            self._departed.pop(next(iter(self._departed)))
        self._seen.pop(instance, None)
        self._doubted.discard(instance)
        member = self._members.pop(instance, None)
        if member is not None:
            self._tell(member, None)

    def _outdated(self, beat: Presence, epoch: int, quiet: float | None) -> None:
        if beat.state is not State.GONE:
            for callback in self.on_outdated:
                callback(Outdated(instance=beat.instance, epoch=epoch, quiet=quiet))

    def _tell(self, before: Presence | None, now: Presence | None) -> None:
        for callback in self.on_change:
            callback(before, now)

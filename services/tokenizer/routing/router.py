"""Which replica and which detokenizer a request goes to. Pure: messages and a clock in, choices out.

A replica's prefix cache is known by the hashes in its `KvEvents` (`prefix_hash.block_hashes`): prefix i of a prompt is
cached if hash i is known, and since hashes are chained, all prefixes before it are too. A prompt that was just routed
counts as cached where it went for a few seconds, so that a burst of requests with one new prefix stays together.

    choose    only one ready replica                            -> it            "only"
              a cached prefix that saves enough of the prompt,
              on a replica that is not overloaded               -> longest       "prefix"
              else                                              -> least loaded  "least_loaded"

Once an overloaded replica's prefix has also been computed elsewhere, both have it, and load decides between them: hot
prefixes spread as far as their load needs.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.tokenizer.routing.prefix_index import PrefixIndex
from radixmesh.shared.messages import KvEvents, Presence, State
from radixmesh.shared.prefix_hash import block_hashes

REPORT_DELAY = 0.05
"""Seconds: what was sent this shortly before a heartbeat came may not be counted in it yet."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and why."""

    replica_id: str
    epoch: int
    reason: str
    """`only`, `least_loaded` or `prefix`."""
    matched_tokens: int
    """Prompt tokens thought to be cached there; 0 if there was no choice, for then nobody looks."""


@dataclass(slots=True)
class _Replica:
    epoch: int
    index: PrefixIndex
    ready: bool = False
    reported: int = 0
    """Sequences running and waiting, by its last heartbeat."""
    full: bool = False
    sent: deque[tuple[float, int]] = field(default_factory=deque)
    """(time, sequences) of what went there from here and is in no heartbeat yet."""
    chosen_at: int = 0

    @property
    def load(self) -> int:
        return self.reported + sum(sequences for _, sequences in self.sent)


class Router:
    """What one tokenizer knows of the replicas of its model.

    Args:
        balance_absolute: a replica is overloaded if it has more than this many sequences beyond the least loaded one,
        balance_relative: and more than this many times as many.
        prefix_share: the share of the prompt by which a cached prefix must beat that of the least loaded replica.
        expect_seconds: how long a routed prompt counts as cached without the replica having said so.
    """

    def __init__(
        self,
        *,
        balance_absolute: int = 8,
        balance_relative: float = 1.5,
        prefix_share: float = 0.25,
        expect_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._balance_absolute = balance_absolute
        self._balance_relative = balance_relative
        self._prefix_share = prefix_share
        self._expect_seconds = expect_seconds
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}
        self._turn = 0

    def seen(self, beat: Presence) -> bool:
        """Takes in a scheduler's heartbeat. True if its prefix cache must be asked for (`KvSnapshotRequest`)."""
        replica = self._replicas.get(beat.instance)
        if replica is not None and beat.epoch < replica.epoch:
            return False
        if replica is None or beat.epoch > replica.epoch:
            replica = self._replicas[beat.instance] = _Replica(beat.epoch, PrefixIndex(beat.epoch))
        now = self._clock()
        replica.ready = beat.state is State.READY
        slots, most = _count(beat, "max_slots"), _count(beat, "max_queued")
        replica.reported = _count(beat, "running") + _count(beat, "waiting")
        replica.full = most > 0 and replica.reported >= slots + most
        while replica.sent and replica.sent[0][0] < now - REPORT_DELAY:
            replica.sent.popleft()
        return replica.ready and replica.index.wants_snapshot(now)

    def gone(self, instance: str, epoch: int) -> None:
        """Forgets a replica that presence has lost."""
        replica = self._replicas.get(instance)
        if replica is not None and replica.epoch <= epoch:
            del self._replicas[instance]

    def apply(self, events: KvEvents) -> bool:
        """Takes in changes of a prefix cache. True if some were missed, so that it must be asked for."""
        replica = self._replicas.get(events.replica_id)
        if replica is None:
            return False  # asked for when its heartbeat comes
        replica.index.apply(events)
        return replica.index.wants_snapshot(self._clock())

    def choose(self, prompt_ids: NDArray[np.int32], namespace: str, sequences: int = 1) -> Route | None:
        """The replica for a prompt; None if none is ready. The choice is counted as sent.

        Args:
            namespace: `prefix_hash.cache_namespace` of the request.
            sequences: how many choices will run there.
        """
        ready = {name: replica for name, replica in self._replicas.items() if replica.ready}
        candidates = {name: replica for name, replica in ready.items() if not replica.full} or ready
        if not candidates:
            return None
        if len(ready) == 1:
            (name,) = ready
            return self._sent(name, "only", 0, sequences)
        return self._choose(candidates, prompt_ids, namespace, sequences)

    def _choose(
        self, candidates: dict[str, _Replica], prompt_ids: NDArray[np.int32], namespace: str, sequences: int
    ) -> Route:
        now = self._clock()
        hashes = {
            size: block_hashes(prompt_ids, size, namespace).tolist()
            for size in {replica.index.block_size for replica in candidates.values()}
            if size
        }
        matched = {
            name: replica.index.match(hashes[replica.index.block_size], now) if replica.index.block_size else 0
            for name, replica in candidates.items()
        }
        by_load = sorted(candidates, key=lambda name: (candidates[name].load, candidates[name].chosen_at, name))
        least = by_load[0]
        best = max(by_load, key=lambda name: matched[name])  # of equal ones the first, which is the less loaded
        worth = max(1.0, self._prefix_share * len(prompt_ids))
        if matched[best] - matched[least] < worth or self._overloaded(candidates[best], candidates[least]):
            best = least
        reason = "prefix" if matched[best] >= worth else "least_loaded"
        index = candidates[best].index
        if index.block_size:
            index.expect(hashes[index.block_size], now + self._expect_seconds)
        return self._sent(best, reason, matched[best], sequences)

    def _overloaded(self, replica: _Replica, least: _Replica) -> bool:
        beyond = replica.load - least.load
        return beyond > self._balance_absolute and replica.load > least.load * self._balance_relative

    def _sent(self, name: str, reason: str, matched: int, sequences: int) -> Route:
        replica = self._replicas[name]
        self._turn += 1
        replica.chosen_at = self._turn
        replica.sent.append((self._clock(), sequences))
        return Route(name, replica.epoch, reason, matched)


def choose_detokenizer(request_id: str, ready: Sequence[Presence]) -> Presence | None:
    """The detokenizer for a request: the same from every tokenizer, and few move when one comes or goes."""

    def score(member: Presence) -> bytes:
        return hashlib.blake2b(f"{request_id}\x1f{member.instance}".encode(), digest_size=8).digest()

    return max(ready, key=score, default=None)


def _count(beat: Presence, name: str) -> int:
    value = beat.attributes.get(name)
    return value if isinstance(value, int) and value > 0 else 0

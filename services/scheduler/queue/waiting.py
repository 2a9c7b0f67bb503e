"""The queue of sequences that wait for a slot."""

import bisect
from collections import deque
from collections.abc import Iterator

from radixmesh.services.scheduler.queue.policies import Policy
from radixmesh.services.scheduler.sequence import Sequence

_RATE_WINDOW = 64
_RETRY_BOUNDS = (1.0, 60.0)


class WaitingQueue:
    """Sequences by level and arrival; a retracted one is back in its old place."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._keys: list[tuple[int, int]] = []
        self._by_key: dict[tuple[int, int], Sequence] = {}
        self.preparing = 0
        """Sequences that cannot be admitted because not all that they need is there."""

    @property
    def admissible(self) -> int:
        """Sequences for which nothing needs to be prepared."""
        return len(self._keys) - self.preparing

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Sequence]:
        for key in self._keys:
            yield self._by_key[key]

    def __reversed__(self) -> Iterator[Sequence]:
        for key in reversed(self._keys):
            yield self._by_key[key]

    def add(self, seq: Sequence) -> None:
        key = self._key(seq)
        bisect.insort(self._keys, key)
        self._by_key[key] = seq
        self.preparing += not seq.prepared

    def remove(self, seq: Sequence) -> None:
        """Raises KeyError if it does not wait."""
        key = self._key(seq)
        del self._by_key[key]
        self.preparing -= not seq.prepared
        del self._keys[bisect.bisect_left(self._keys, key)]

    def ready(self, reported_seq: int, count: int) -> list[Sequence]:
        """The first `count` sequences that could be admitted: prepared, and all plans in flight for them reported."""
        found: list[Sequence] = []
        for key in self._keys:
            seq = self._by_key[key]
            if seq.prepared and seq.ready_after <= reported_seq:
                found.append(seq)
                if len(found) == count:
                    break
        return found

    def prepared(self, seq: Sequence) -> None:
        """All that a waiting sequence needs is there."""
        seq.prepared = True
        self.preparing -= 1

    def promote(self, waiting_since: float) -> None:
        """Lets those queued before that time go first."""
        for seq in [seq for seq in self if not seq.promoted and seq.queued_at < waiting_since]:
            self.remove(seq)
            seq.promoted = True
            self.add(seq)

    def _key(self, seq: Sequence) -> tuple[int, int]:
        return (self._policy.level(seq), seq.order)


class FinishRate:
    """How fast sequences end, to tell a client that was refused when to come back."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_RATE_WINDOW)

    def ended(self, now: float) -> None:
        self._times.append(now)

    def seconds_for(self, count: int) -> float:
        """Seconds until about `count` more have ended, between 1 and 60."""
        low, high = _RETRY_BOUNDS
        if len(self._times) < 2:
            return low
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return round(min(max(count * each, low), high), 1)

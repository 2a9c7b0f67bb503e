"""Bounded memories beside the table of open requests."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from radixmesh.services.detokenizer.rows import Row


class AttemptMemory:
    """The highest attempt noted per request, for the last `limit` requests."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._attempts: OrderedDict[str, int] = OrderedDict()

    def note(self, request_id: str, attempt: int) -> None:
        """Remembers `attempt` and all before it."""
        self._attempts[request_id] = max(attempt, self._attempts.get(request_id, -1))
        self._attempts.move_to_end(request_id)
        while len(self._attempts) > self._limit:
            self._attempts.popitem(last=False)

    def covers(self, request_id: str, attempt: int) -> bool:
        """Whether `attempt`, or one after it, was noted."""
        return self._attempts.get(request_id, -1) >= attempt


@dataclass(slots=True)
class _Waiting:
    expires: float
    rows: list[Row] = field(default_factory=list)


class HeldRows:
    """Rows that came before their `OpenText`; at most `limit` of them, each for `seconds` at most."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._requests: OrderedDict[tuple[str, int], _Waiting] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, row: Row, now: float) -> list[Row]:
        """Keeps `row`. Returns the rows that had to go to make room, those of whole requests."""
        key = row.request_id, row.attempt
        if key not in self._requests:
            self._requests[key] = _Waiting(now + self._seconds)
        self._requests[key].rows.append(row)
        self._size += 1
        return self._pop_oldest() if self._size > self._limit else []

    def take(self, request_id: str, attempt: int) -> list[Row]:
        """Gives out what is held of one attempt, in the order in which it came."""
        waiting = self._requests.pop((request_id, attempt), None)
        if waiting is None:
            return []
        self._size -= len(waiting.rows)
        return waiting.rows

    def expired(self, now: float) -> Iterator[Row]:
        """Gives out what was held for too long."""
        while self._requests and next(iter(self._requests.values())).expires <= now:
            yield from self._pop_oldest()

    def _pop_oldest(self) -> list[Row]:
        request_id, attempt = next(iter(self._requests))
        return self.take(request_id, attempt)

"""Rows of requests that have not been opened yet."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from radixmesh.services.detokenizer.rows import Row


@dataclass(slots=True)
class _Attempt:
    expires: float
    rows: list[Row] = field(default_factory=list)


class PendingRows:
    """Rows that came before their `OpenText`; at most `limit` of them, each for `seconds` at most."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._requests: OrderedDict[tuple[str, int], _Attempt] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, row: Row, now: float) -> list[Row]:
        """Keeps `row`. Returns the rows that had to go to make room, those of whole requests."""
        key = row.request_id, row.attempt
        if key not in self._requests:
            self._requests[key] = _Attempt(now + self._seconds)
        self._requests[key].rows.append(row)
        self._size += 1
        return self._pop_oldest() if self._size > self._limit else []

    def take(self, request_id: str, attempt: int) -> list[Row]:
        """Gives out what waits of one attempt, in the order in which it came."""
        waiting = self._requests.pop((request_id, attempt), None)
        if waiting is None:
            return []
        self._size -= len(waiting.rows)
        return waiting.rows

    def expired(self, now: float) -> Iterator[Row]:
        """Gives out what has waited for too long."""
        while self._requests and next(iter(self._requests.values())).expires <= now:
            yield from self._pop_oldest()

    def _pop_oldest(self) -> list[Row]:
        request_id, attempt = next(iter(self._requests))
        return self.take(request_id, attempt)

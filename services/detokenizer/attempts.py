"""Attempts that are over, of which late messages may still come."""

from collections import OrderedDict


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

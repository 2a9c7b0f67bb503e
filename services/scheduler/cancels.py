"""Cancels that came before what they cancel."""

_KEPT = 8192


class CancelLog:
    """The latest cancels of requests unknown here: a gateway's `Cancel` can overtake its request's `Admit`."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], int] = {}

    def note(self, request_id: str, choice: int, attempt: int) -> None:
        """Attempts up to `attempt` of that choice (-1: of all) are not wanted."""
        key = (request_id, choice)
        self._attempts[key] = max(attempt, self._attempts.pop(key, -1))
        while len(self._attempts) > _KEPT:
            del self._attempts[next(iter(self._attempts))]

    def covers(self, request_id: str, choice: int, attempt: int) -> bool:
        """Whether that attempt of the choice has been cancelled."""
        return any(attempt <= self._attempts.get((request_id, key), -1) for key in (choice, -1))

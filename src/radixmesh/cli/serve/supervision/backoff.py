"""How long to wait before a process that died is started again, and when to give up."""

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Doubles the wait with each failure in a row; forgets them after a healthy while.

    A unit that was never ready and fails `give_up` times in a row will not get better by itself (a bad model, a
    wrong flag): it is given up. One that has served once is started again for ever.
    """

    first: float = 0.2
    """Seconds."""
    longest: float = 15.0
    """Seconds."""
    healthy: float = 10.0
    """Seconds of readiness that clear the record."""
    give_up: int = 3
    failures: int = field(default=0, init=False)
    served: bool = field(default=False, init=False)

    def died(self, ready_for: float | None) -> float:
        """Counts one death; gives the seconds to wait.

        Args:
            ready_for: seconds since it became ready; None if it did not.
        """
        if ready_for is not None:
            self.served = True
            if ready_for >= self.healthy:
                self.failures = 0
        self.failures += 1
        return float(min(self.first * 2 ** min(self.failures - 1, 30), self.longest))

    @property
    def hopeless(self) -> bool:
        return not self.served and self.failures >= self.give_up

"""Epochs: which of the processes that have held one instance name is the latest.

An epoch is the wall clock at a process's start, unless a higher one is known: clocks are set back, and hosts disagree.
Nobody keeps books for that. Whoever drops a heartbeat because it knows of a higher epoch says so (`Outdated`), and the
sender takes one above it:

    newcomer ──Presence, epoch 5──▶ all who remember epoch 9 ──Outdated, 9──▶ newcomer ──Presence, epoch 10──▶ all

Two processes that live under one name at once would overtake each other for ever. So of these the newcomer ends, and
the one that has been there for long takes its place again; of two newcomers, the one with the lower epoch ends.
"""

import time
from collections.abc import Callable

from radixmesh.shared.errors import RadixMeshError
from radixmesh.shared.messages import Outdated

HIGHEST = 2**63 - 1

SETTLED = 30.0
"""Seconds on the bus after which a process does not give way to a newcomer of its name."""

_OVERTAKING_COSTS = 6.0
"""Seconds of its standing that a process loses by overtaking: two that think themselves settled soon come to an end."""

LATENCY = 5.0
"""Seconds that a heartbeat, and the news of it, may be on their way between busy processes. A namesake that was heard
of no later than this after our start may have died before it."""


def now_epoch() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Epoch:
    """The epoch of this process. It only rises.

    Args:
        wall: microseconds since 1970, as far as this host knows.
        clock: seconds; only goes forward.
    """

    def __init__(self, wall: Callable[[], int] = now_epoch, clock: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._clock = clock
        self.value = wall()
        self._since = clock()

    def renew(self, above: int = -1) -> None:
        """Takes a new epoch, higher than the present one and than `above`."""
        self.value = min(max(self._wall(), self.value + 1, above + 1), HIGHEST)

    def was_away(self) -> None:
        """This process was asleep, or off the bus: another may have taken its name in good faith."""
        self._since = self._clock()

    def told(self, news: Outdated) -> bool:
        """Takes in what somebody knows of this name. True if the epoch was raised, which everyone must hear.

        Raises:
            RadixMeshError: another process lives under this name, and was there before.
        """
        now = self._clock()
        if news.quiet is None:
            if news.epoch < self.value:
                return False
        else:
            if news.epoch <= self.value or now - news.quiet <= self._since + LATENCY:
                return False  # our own beat; or one that may be dead by now, which silence will show
            self._since = max(self._since, now - 2 * SETTLED)
            if now - self._since < SETTLED:
                text = f"another process lives under the name {news.instance}: give each its own --instance"
                raise RadixMeshError(text)
            self._since += _OVERTAKING_COSTS
        self.renew(above=news.epoch)
        return True

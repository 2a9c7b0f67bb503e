"""Stop strings over streamed text.

Which match wins is a function of the text alone, not of how it was cut: the one that is complete first, and among
those complete at the same character the longest. Nothing that may become a stop string is given out.
"""

from collections import deque
from functools import lru_cache


class StopSet:
    """Stop strings as an Aho-Corasick automaton: one step per character, however many strings there are.

    State 0 is the root. A state's depth is the length of the longest suffix of the text that begins a stop string,
    which is exactly what must be held back.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.edges: list[dict[str, int]] = [{}]
        self.fail = [0]
        self.depth = [0]
        self.match = [-1]
        """Per state, the index of the longest stop string that ends there, or -1."""
        for index, stop in enumerate(self.stops):
            self._insert(index, stop)
        self._link()
        self.first = frozenset(self.edges[0])

    def _insert(self, index: int, stop: str) -> None:
        state = 0
        for char in stop:
            following = self.edges[state].get(char)
            if following is None:
                following = len(self.edges)
                self.edges[state][char] = following
                self.edges.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.match.append(-1)
            state = following
        if self.match[state] < 0:
            self.match[state] = index

    def _link(self) -> None:
        queue = deque(self.edges[0].values())
        while queue:
            state = queue.popleft()
            if self.match[state] < 0:
                self.match[state] = self.match[self.fail[state]]
            for char, child in self.edges[state].items():
                self.fail[child] = self.step(self.fail[state], char)
                queue.append(child)

    def step(self, state: int, char: str) -> int:
        """The state after `char`."""
        while state and char not in self.edges[state]:
            state = self.fail[state]
        return self.edges[state].get(char, 0)


@lru_cache(maxsize=256)
def stop_set(stops: tuple[str, ...]) -> StopSet:
    """The automaton for `stops`; requests with the same ones share it."""
    return StopSet(stops)


class StopScan:
    """One choice's text on its way through a `StopSet`."""

    __slots__ = ("_held", "_set", "_state")

    def __init__(self, stops: StopSet) -> None:
        self._set = stops
        self._state = 0
        self._held = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """Takes in more text.

        Returns:
            the text that may go out, and the stop string that is now complete, if one is. What follows a match is
            dropped, and nothing may be fed after it.
        """
        stops = self._set
        if not self._state and stops.first.isdisjoint(text):
            return text, None
        state = self._state
        for position, char in enumerate(text):
            state = stops.step(state, char)
            if (index := stops.match[state]) >= 0:
                seen = self._held + text[: position + 1]
                self._held, self._state = "", 0
                return seen[: len(seen) - len(stops.stops[index])], stops.stops[index]
        seen = self._held + text
        certain = len(seen) - stops.depth[state]
        self._held, self._state = seen[certain:], state
        return seen[:certain], None

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held, self._state = self._held, "", 0
        return held

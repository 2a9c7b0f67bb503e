"""Stop strings over streamed text.

Which match wins is a function of the text alone, not of how it was cut: the one that is complete first, and among
those complete at the same character the longest. Nothing that may become a stop string is given out.
"""

from collections import deque
from functools import lru_cache
from typing import NamedTuple


class Piece(NamedTuple):
    """Text, and whether the client gets to see it: the spelling of a control token is text that it does not."""

    text: str
    shown: bool


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


class Scanned(NamedTuple):
    """What came of some text."""

    pieces: list[Piece]
    """What may go out."""
    stop: str | None = None
    """The stop string that is now complete, if one is; it and what follows it are dropped."""
    rest: str = ""
    """Of the given text, what follows the stop string."""


class StopScan:
    """One choice's text on its way through a `StopSet`: hidden text takes part in it as all other does."""

    __slots__ = ("_held", "_length", "_set", "_state")

    def __init__(self, stops: StopSet) -> None:
        self._set = stops
        self._state = 0
        self._held: deque[Piece] = deque()
        self._length = 0
        """Characters in `_held`."""

    def feed(self, text: str, shown: bool = True) -> Scanned:
        """Takes in more text. Nothing may be fed after a match."""
        stops = self._set
        if not self._state and stops.first.isdisjoint(text):
            return Scanned([Piece(text, shown)])
        state = self._state
        for position, char in enumerate(text):
            state = stops.step(state, char)
            if (index := stops.match[state]) >= 0:
                self._hold(Piece(text[: position + 1], shown))
                stop = stops.stops[index]
                return Scanned(self._release(len(stop)), stop, text[position + 1 :])
        self._hold(Piece(text, shown))
        self._state = state
        return Scanned(self._release(stops.depth[state]))

    def flush(self) -> list[Piece]:
        """What was held back, at the end of the text."""
        return self._release(0)

    def _hold(self, piece: Piece) -> None:
        self._held.append(piece)
        self._length += len(piece.text)

    def _release(self, keep: int) -> list[Piece]:
        """All that is held but for the last `keep` characters."""
        pieces = []
        while self._length > keep:
            text, shown = self._held.popleft()
            if (certain := self._length - keep) < len(text):
                self._held.appendleft(Piece(text[certain:], shown))
                text = text[:certain]
            self._length -= len(text)
            pieces.append(Piece(text, shown))
        return pieces

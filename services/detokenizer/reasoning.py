"""A model's thoughts apart from what it says.

    [blanks] <think> thoughts </think> [blanks] content

The thoughts begin where the prompt has opened them, or with an opening tag at the very start; they end with the first
closing tag, or not at all. Tags are looked for in the whole text, control tokens' spelling included, and are dropped
with the blanks next to them. An answer that begins otherwise is content to its last character.
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from radixmesh.services.detokenizer.stop import Piece, StopScan, stop_set


class Split(NamedTuple):
    """What is new of both; the reasoning comes first."""

    reasoning: str = ""
    content: str = ""


class _Stage(Enum):
    OPENING = "opening"
    """An opening tag may come."""
    THINKING = "thinking"
    CONTENT = "content"


class ReasoningSplit:
    """One choice's text on its way into thoughts and content.

    Like the decoders it gives the same for the same text, however that was cut.

    Args:
        begin: the opening tag.
        end: the closing one.
        opened: whether the prompt ends inside of thoughts.
    """

    __slots__ = ("_begin", "_begun", "_blanks", "_end", "_opened", "_stage", "_tag")

    def __init__(self, begin: str, end: str, *, opened: bool) -> None:
        self._begin = begin
        self._end = StopScan(stop_set((end,)))
        self._opened = opened
        self._stage = _Stage.OPENING
        self._tag: list[Piece] = []
        """Single characters that may become an opening tag."""
        self._blanks = ""
        """Shown ones that are dropped if a tag comes next."""
        self._begun = False
        """Whether the thoughts, and later the content, have more than blanks."""

    @property
    def over(self) -> bool:
        """All that comes is content as it stands."""
        return self._stage is _Stage.CONTENT and self._begun

    def feed(self, pieces: Iterable[Piece]) -> Split:
        """Takes in more text."""
        splits = [self._feed(text, shown) for text, shown in pieces]
        if len(splits) == 1:
            return splits[0]
        return Split("".join([split.reasoning for split in splits]), "".join([split.content for split in splits]))

    def finish(self) -> Split:
        """What was held back, at the end of the text."""
        if self._stage is _Stage.CONTENT:
            return Split()
        held = self._visible(self._tag if self._stage is _Stage.OPENING else self._end.flush())
        if self._stage is _Stage.OPENING and not self._opened:
            return Split(content=self._blanks + held)
        return Split(self._thoughts(held) + self._blanks)

    def _feed(self, text: str, shown: bool) -> Split:
        if self._stage is _Stage.OPENING:
            return self._open(text, shown)
        if self._stage is _Stage.THINKING:
            return self._think(text, shown)
        return Split(content=self._content(text)) if shown else Split()

    def _open(self, text: str, shown: bool) -> Split:
        for position, char in enumerate(text):
            self._tag.append(Piece(char, shown))
            while self._tag and not self._begin.startswith(spelled := "".join([char for char, _ in self._tag])):
                first, seen = self._tag[0]
                # A hidden token before all thoughts is nothing; inside of opened ones it may be the closing tag.
                if not (first.isspace() if seen else not self._opened):
                    return self._no_tag(text[position + 1 :], shown)
                del self._tag[0]
                if seen and not self._opened:
                    self._blanks += first
            if self._tag and spelled == self._begin:
                self._stage, self._blanks = _Stage.THINKING, ""
                return self._think(text[position + 1 :], shown)
        return Split()

    def _no_tag(self, rest: str, shown: bool) -> Split:
        """What came is no opening tag: thoughts if the prompt has opened some, else content."""
        pieces = [*self._tag, Piece(rest, shown)]
        if self._opened:
            self._stage = _Stage.THINKING
            return self.feed(pieces)
        self._stage, self._begun = _Stage.CONTENT, True
        return Split(content=self._blanks + self._visible(pieces))

    def _think(self, text: str, shown: bool) -> Split:
        scanned = self._end.feed(text, shown)
        reasoning = self._thoughts(self._visible(scanned.pieces))
        if scanned.stop is None:
            return Split(reasoning)
        self._stage, self._begun = _Stage.CONTENT, False
        return Split(reasoning, self._content(scanned.rest) if shown else "")

    def _thoughts(self, text: str) -> str:
        """`text` without blanks at the start of all thoughts; those at its end wait for what comes behind them."""
        text = self._blanks + text
        if not self._begun:
            text = text.lstrip()
        certain = text.rstrip()
        self._blanks = text[len(certain) :]
        self._begun = self._begun or bool(certain)
        return certain

    def _content(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text

    @staticmethod
    def _visible(pieces: Iterable[Piece]) -> str:
        return "".join([text for text, shown in pieces if shown])

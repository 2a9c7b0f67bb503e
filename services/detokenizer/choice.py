"""One choice: its tokens in, its text and its end out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from radixmesh.services.detokenizer.reasoning import ReasoningSplit, Split
from radixmesh.services.detokenizer.stop import Piece, StopScan, stop_set
from radixmesh.services.detokenizer.vocabulary import Vocabulary
from radixmesh.shared.messages import Finish, OpenText


@dataclass(slots=True)
class Advance:
    """What came of some tokens. Never changed once made."""

    text: str
    used: int
    """How many of the tokens count; fewer than were given only if a stop string was complete before the last."""
    finish: Finish
    stop_reason: str | int | None
    reasoning: str = ""
    """Thoughts that go before `text`, where the two are told apart."""


class ChoiceText:
    """What one choice's tokens go through.

        tokens ─▶ decoder ─▶ stop strings ─▶ reasoning ─▶ text
           └── spelling of hidden tokens ──▲

    Control tokens that are not shown take part in the search for stop strings and reasoning tags, spelled as the
    vocabulary does, each in the place in which it came (before a character that it parts). So does the token that ends
    the text, which is never shown: a stop string that ends with it is what ended the text.
    """

    __slots__ = ("_decoder", "_reasoning", "_scan", "_skip_special", "_unscanned", "_vocabulary")

    def __init__(self, vocabulary: Vocabulary, opened: OpenText) -> None:
        self._vocabulary = vocabulary
        self._skip_special = opened.skip_special_tokens
        self._decoder = vocabulary.decoder(opened.prompt_tail.tolist(), opened.skip_special_tokens)
        self._scan = StopScan(stop_set(tuple(opened.stop))) if opened.stop else None
        self._unscanned = opened.min_tokens
        """Stop strings are looked for only in what comes after this many tokens."""
        self._reasoning: ReasoningSplit | None = None
        if opened.reasoning_tags is not None:
            begin, end = opened.reasoning_tags
            self._reasoning = ReasoningSplit(begin, end, opened=opened.reasoning_open)

    def advance(self, tokens: Sequence[int], finish: Finish = Finish.RUNNING, stop_token: int = -1) -> Advance:
        """Takes in the next tokens, and the worker's word that they are the last.

        Args:
            finish: the choice's state after the last of `tokens`.
            stop_token: the stop token id that ended it, or -1.
        """
        shown, end = tokens, ""
        if finish is Finish.STOP and tokens:  # by the last of them: the worker knows of no other stop
            shown, end = tokens[:-1], self._hidden(tokens[-1])
        reason = stop_token if finish is Finish.STOP and stop_token >= 0 else None
        if self._reasoning is not None and self._reasoning.over:
            self._reasoning = None
        if self._scan is None and self._reasoning is None:
            text = self._decoder.feed(shown)
            if finish is not Finish.RUNNING:
                text += self._decoder.finish()
            return Advance(text, len(tokens), finish, reason)
        splits = []
        for position, token in enumerate(shown):
            split, stop = self._through(self._piece(token))
            splits.append(split)
            if stop is not None:
                return _joined([*splits, self._rest()], position + 1, Finish.STOP, stop)
            self._unscanned = max(0, self._unscanned - 1)
        if finish is not Finish.RUNNING:
            for piece in (Piece(self._decoder.finish(), True), Piece(end, False)):
                split, stop = self._through(piece)
                splits.append(split)
                if stop is not None:
                    return _joined([*splits, self._rest()], len(tokens), Finish.STOP, stop)
            splits += [self._split(self._scan.flush() if self._scan is not None else ()), self._rest()]
        return _joined(splits, len(tokens), finish, reason)

    def _piece(self, token: int) -> Piece:
        if self._skip_special and self._vocabulary.is_special(token):
            return Piece(self._hidden(token), False)
        return Piece(self._decoder.feed((token,)), True)

    def _hidden(self, token: int) -> str:
        """What a token that is not shown looks like to stop strings: an ordinary one may have ended the text too."""
        if self._vocabulary.is_special(token):
            return self._vocabulary.spelling(token) or ""
        return self._vocabulary.decode((token,), False)

    def _through(self, piece: Piece) -> tuple[Split, str | None]:
        """What is certain after `piece`, and the stop string that it has completed."""
        if self._scan is None or self._unscanned:
            return self._split((piece,)), None
        scanned = self._scan.feed(*piece)
        return self._split(scanned.pieces), scanned.stop

    def _split(self, pieces: Iterable[Piece]) -> Split:
        if self._reasoning is not None:
            return self._reasoning.feed(pieces)
        return Split(content="".join([text for text, shown in pieces if shown]))

    def _rest(self) -> Split:
        return self._reasoning.finish() if self._reasoning is not None else Split()


def _joined(splits: Sequence[Split], used: int, finish: Finish, reason: str | int | None) -> Advance:
    reasoning, text = ("".join(parts) for parts in zip(*splits, strict=True)) if splits else ("", "")
    return Advance(text, used, finish, reason, reasoning)

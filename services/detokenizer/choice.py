"""One choice: its tokens in, its text and its end out."""

from collections.abc import Sequence
from dataclasses import dataclass

from radixmesh.services.detokenizer.incremental import Decoder
from radixmesh.services.detokenizer.stop import StopScan, StopSet
from radixmesh.shared.messages import Finish


@dataclass(slots=True)
class Advance:
    """What came of some tokens. Never changed once made."""

    text: str
    used: int
    """How many of the tokens count; fewer than were given only if a stop string was complete before the last."""
    finish: Finish
    stop_reason: str | int | None


class ChoiceText:
    """Decoder and stop strings of one choice.

    Args:
        min_tokens: stop strings are looked for only in what comes after this many tokens.
    """

    __slots__ = ("_decoder", "_scan", "_unscanned")

    def __init__(self, decoder: Decoder, stops: StopSet | None, min_tokens: int = 0) -> None:
        self._decoder = decoder
        self._scan = StopScan(stops) if stops is not None else None
        self._unscanned = min_tokens

    def advance(self, tokens: Sequence[int], finish: Finish = Finish.RUNNING, stop_token: int = -1) -> Advance:
        """Takes in the next tokens, and the worker's word that they are the last.

        Args:
            finish: the choice's state after the last of `tokens`.
            stop_token: the stop token id that ended it, or -1.
        """
        shown = tokens
        if finish is Finish.STOP and len(tokens) > 0:  # by the last of them: the worker knows of no other stop
            shown = tokens[:-1]
        scan = self._scan
        reason = stop_token if finish is Finish.STOP and stop_token >= 0 else None
        if scan is None:
            text = self._decoder.feed(shown)
            if finish is not Finish.RUNNING:
                text += self._decoder.finish()
            return Advance(text, len(tokens), finish, reason)
        parts = []
        for position, token in enumerate(shown):
            part, stop = self._looked_over(scan, self._decoder.feed((token,)))
            self._unscanned = max(0, self._unscanned - 1)
            parts.append(part)
            if stop is not None:
                return Advance("".join(parts), position + 1, Finish.STOP, stop)
        if finish is not Finish.RUNNING:
            part, stop = scan.feed(self._decoder.finish())
            parts.append(part)
            if stop is not None:
                return Advance("".join(parts), len(tokens), Finish.STOP, stop)
            parts.append(scan.flush())
        return Advance("".join(parts), len(tokens), finish, reason)

    def _looked_over(self, scan: StopScan, text: str) -> tuple[str, str | None]:
        return (text, None) if self._unscanned else scan.feed(text)

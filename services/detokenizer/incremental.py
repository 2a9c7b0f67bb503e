"""Text of one choice, token by token.

A decoder is a pure function of the token sequence: the text that `feed` has given after k tokens is the same however
they were cut into calls, so a resumed attempt that replays them knows exactly what the client has seen.

Two kinds. `ByteDecoder` serves tokenizers in which each token stands for fixed bytes (byte-level BPE; sentencepiece
pieces with byte fallback): a table look-up and an incremental UTF-8 decoder. `WindowDecoder` serves all others by
decoding a few tokens before and after each step and giving the difference.

`tokenizers.decoders.DecodeStream` is no third kind: it raises "Invalid prefix" on broken byte-fallback sequences,
withholds real U+FFFD characters, and cannot flush what it holds at the end.
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"

CONTEXT = 6
"""Tokens before the undecided ones that a `WindowDecoder` decodes along: enough for one to have text."""

HELD = 8
"""Tokens after which a `WindowDecoder` takes a U+FFFD at the end for real. No character has more bytes than 4."""


class Decoder(Protocol):
    """Turns ids into text as they come."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that is certain after `ids`; an incomplete UTF-8 sequence waits for its end."""

    def finish(self) -> str:
        """What still waited, with U+FFFD for bytes that make no character."""


class ByteDecoder:
    """For tokenizers in which a token's bytes do not depend on its neighbours.

    Bytes that make no character become U+FFFD, one for each maximal invalid part, and the characters around them
    stay. (The ``ByteFallback`` decoder of `tokenizers` would turn the valid bytes of such a run into U+FFFD too, even
    after they were shown.) Otherwise the text is exactly ``decode(tail + ids)`` behind ``decode(tail)``.

    Args:
        pieces: bytes of each token; empty for those that are not shown.
        first: bytes of a token that begins the whole text, where sentencepiece drops a leading space.
        tail: the last ids of the prompt.
    """

    __slots__ = ("_begun", "_first", "_pieces", "_utf8")

    def __init__(self, pieces: Mapping[int, bytes], first: Callable[[int], bytes], tail: Sequence[int]) -> None:
        self._pieces = pieces
        self._first = first
        self._begun = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.feed(tail)

    def feed(self, ids: Sequence[int]) -> str:
        pieces = self._pieces
        if self._begun:
            return self._utf8.decode(b"".join([pieces[token] for token in ids]))
        data = bytearray()
        for token in ids:
            piece = pieces[token]
            if piece and not self._begun:
                self._begun = True
                piece = self._first(token)
            data += piece
        return self._utf8.decode(bytes(data))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDecoder:
    """For any tokenizer, given its whole-sequence `decode`. Costs two decodes of about `CONTEXT` tokens per token.

        ids    [ context ............ | undecided ....... ]
        shown    text of the context
    """

    __slots__ = ("_decode", "_ids", "_shown", "_undecided")

    def __init__(self, decode: Callable[[Sequence[int]], str], tail: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(tail)
        self._undecided = 0
        self._shown = decode(self._ids).rstrip(REPLACEMENT)

    def feed(self, ids: Sequence[int]) -> str:
        return "".join([self._step(token) for token in ids])

    def _step(self, token: int) -> str:
        self._ids.append(token)
        self._undecided += 1
        text = self._decode(self._ids)
        if text.endswith(REPLACEMENT) and self._undecided < HELD:
            return ""
        delta = _behind(self._shown, text)
        del self._ids[:-CONTEXT]
        self._undecided = 0
        self._shown = self._decode(self._ids)
        return delta

    def finish(self) -> str:
        delta = _behind(self._shown, self._decode(self._ids)) if self._undecided else ""
        self._undecided = 0
        return delta


def _behind(shown: str, text: str) -> str:
    """`text` without `shown` at its start; where a decoder has changed its mind, without as many characters."""
    return text[len(shown) :]

"""Text of one choice, token by token.

A decoder is a pure function of the token sequence: the text that `feed` has given after k tokens is the same however
they were cut into calls, so a resumed attempt that replays them knows exactly what the client has seen.

Three kinds. `ByteDecoder` serves tokenizers in which each token stands for fixed bytes (byte-level BPE; sentencepiece
pieces with byte fallback): a table look-up and an incremental UTF-8 decoder. `WindowDecoder` serves all others by
decoding a few tokens before and with each new one and giving the difference; `FallbackDecoder` stands before it where
some of the tokens are single bytes.

`tokenizers.decoders.DecodeStream` is no fourth kind: it raises "Invalid prefix" on broken byte-fallback sequences,
withholds real U+FFFD characters, and cannot flush what it holds at the end.
"""

import codecs
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Protocol

REPLACEMENT = "\ufffd"

CONTEXT = 6
"""Tokens, or characters made of several, that a `WindowDecoder` decodes along: enough for one to have text."""

Raw = Callable[[int], bytes | None]
"""The bytes of a token that may be a part of a character; none for other text; None for a token without text."""


class Decoder(Protocol):
    """Turns ids into text as they come."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that is certain after `ids`; an incomplete UTF-8 sequence waits for its end."""

    def finish(self) -> str:
        """What still waited, with U+FFFD for bytes that make no character."""


class _BehindPrompt:
    """What all kinds do about a character that the prompt has begun.

    If the answer's first bytes end it, it belongs to the answer. If they do not, its U+FFFD belongs to the prompt.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open = b""
        """That character's bytes so far, those of the answer with them; empty once it is decided."""

    def _own(self, text: str, data: bytes = b"") -> str:
        """`text`, which `data` made certain, without what is the prompt's. Call it while `_open`."""
        self._open += data
        if not text:
            return ""
        broken = text[0] == REPLACEMENT and not self._open.startswith(REPLACEMENT.encode())
        self._open = b""
        return text[1:] if broken else text


class ByteDecoder(_BehindPrompt):
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
        super().__init__()
        self._pieces = pieces
        self._first = first
        self._begun = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.feed(tail)
        self._open = _incomplete(self._utf8.getstate()[0])
        if not self._open:
            self._utf8.reset()

    def feed(self, ids: Sequence[int]) -> str:
        pieces = self._pieces
        if self._begun and not self._open:
            return self._utf8.decode(b"".join([pieces[token] for token in ids]))
        data = bytearray()
        for token in ids:
            piece = pieces[token]
            if piece and not self._begun:
                self._begun = True
                piece = self._first(token)
            data += piece
        text = self._utf8.decode(bytes(data))
        return self._own(text, bytes(data)) if self._open else text

    def finish(self) -> str:
        text = self._utf8.decode(b"", final=True)
        return self._own(text) if self._open else text


def _incomplete(state: bytes) -> bytes:
    """What an incremental decoder waits with, if it can become a character: two bytes of a surrogate, say, cannot."""
    try:
        state.decode()
    except UnicodeDecodeError as error:
        return state if error.reason == "unexpected end of data" else b""
    return state


class WindowDecoder(_BehindPrompt):
    """For any tokenizer, given its whole-sequence `decode`. Costs two decodes of about `CONTEXT` tokens per token.

    context   the last tokens, cut only between what was given to `add` at once
    shown     their text, without the U+FFFD of a character that is incomplete at their end
    """

    __slots__ = ("_context", "_decode", "_raw", "_shown", "_utf8")

    def __init__(self, decode: Callable[[Sequence[int]], str], raw: Raw, tail: Sequence[int]) -> None:
        super().__init__()
        self._decode = decode
        self._raw = raw
        self._context: deque[Sequence[int]] = deque()
        self._shown = ""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.feed(tail)
        self._open = self._incomplete

    @property
    def _incomplete(self) -> bytes:
        return self._utf8.getstate()[0]

    def feed(self, ids: Sequence[int]) -> str:
        return "".join([self.add((token,), data) for token in ids if (data := self._raw(token)) is not None])

    def add(self, ids: Sequence[int], data: bytes = b"") -> str:
        """The text of `ids`, which are never parted.

        Args:
            data: what they add to a character that may be incomplete at their end.
        """
        self._utf8.decode(data)
        self._context.append(ids)
        text = self._text()
        delta = text[len(self._shown) :]  # where a decoder has changed its mind, without as many characters
        if len(self._context) > CONTEXT:
            self._context.popleft()
            text = self._text()
        self._shown = text
        return self._own(delta, data) if self._open else delta

    def _text(self) -> str:
        text = self._decode([*chain.from_iterable(self._context)])
        return text.removesuffix(REPLACEMENT) if self._incomplete else text

    def finish(self) -> str:
        text = REPLACEMENT if self._incomplete else ""
        self._utf8.reset()
        return self._own(text) if self._open else text


class FallbackDecoder(_BehindPrompt):
    """Before a `WindowDecoder` whose tokenizer writes some characters as one token a byte.

    Such tokenizers take a whole run of bytes for U+FFFDs if one of them fits nowhere, or has not come yet. So the
    window gets the tokens of whole characters only; what makes none becomes U+FFFD as in a `ByteDecoder`.

    Args:
        window: new.
    """

    __slots__ = ("_bytes", "_held", "_raw", "_window")

    def __init__(self, window: WindowDecoder, raw: Raw, tail: Sequence[int]) -> None:
        super().__init__()
        self._window = window
        self._raw = raw
        self._held: list[int] = []
        self._bytes = b""
        self.feed(tail)
        self._open = self._bytes

    def feed(self, ids: Sequence[int]) -> str:
        return "".join([self._step(token, data) for token in ids if (data := self._raw(token)) is not None])

    def _step(self, token: int, data: bytes) -> str:
        if data:
            self._held.append(token)
            self._bytes += data
            text = self._characters()
        else:
            text = self._broken() + self._window.add((token,))
        return self._own(text, data) if self._open else text

    def _characters(self) -> str:
        """The text of the bytes that wait, but for an incomplete character at their end."""
        text = ""
        while self._held:
            try:
                self._bytes.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    break
                text += REPLACEMENT
                del self._held[: error.end]
                self._bytes = self._bytes[error.end :]
            else:
                text += self._window.add(tuple(self._held))
                self._held.clear()
                self._bytes = b""
        return text

    def _broken(self) -> str:
        """What stands for a character whose end does not come."""
        text = REPLACEMENT if self._held else ""
        self._held.clear()
        self._bytes = b""
        return text

    def finish(self) -> str:
        text = self._broken()
        return self._own(text) if self._open else text

"""What each token id means as text."""

import json
import logging
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from radixmesh.services.detokenizer.incremental import (
    REPLACEMENT,
    ByteDecoder,
    Decoder,
    FallbackDecoder,
    WindowDecoder,
)
from radixmesh.shared.model_files.tokenizer import reader
from radixmesh.shared.model_files.tokenizer.conversion import PythonTokenizer

log = logging.getLogger(__name__)

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_SENTENCEPIECE = re.compile(r"(Replace ?)+(ByteFallback ?)?(Fuse ?)?((?<=Fuse )Strip)?")
"""Decoder steps in the order in which each works on tokens alone, but for a space at the very start."""


def _byte_level_alphabet() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes: printable Latin-1 as itself, the rest from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


@dataclass(frozen=True, slots=True)
class ByteRule:
    """How a token's bytes follow from its spelling, for decoders in which they do."""

    byte_level: bool = False
    replace: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    lead: Literal["keep", "space", "marks"] = "keep"
    """What the very first token loses: nothing, one leading space, or all its word marks."""
    mark: str = ""

    def piece(self, token: str) -> bytes:
        """Bytes of `token` inside a text."""
        if self.byte_level:
            try:
                return bytes([_ALPHABET[char] for char in token])
            except KeyError:  # an added token, spelled as it is
                return token.encode()
        if self.byte_fallback and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for old, new in self.replace:
            token = token.replace(old, new)
        return token.encode()

    def first(self, token: str) -> bytes:
        """Bytes of `token` at the beginning of the whole text."""
        if self.lead == "marks":
            return self.piece(token.replace(self.mark, ""))
        piece = self.piece(token)
        return piece[1:] if self.lead == "space" and piece.startswith(b" ") else piece


def _steps(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for part in decoder["decoders"] for step in _steps(part)]


def character_rule(decoder: Mapping[str, Any] | None) -> ByteRule | None:
    """How to know tokens that may be parts of characters, for decoders that have no rule for their whole text."""
    kinds = {step["type"] for step in _steps(decoder)} if decoder is not None else set()
    if "ByteLevel" in kinds:
        return ByteRule(byte_level=True)
    return ByteRule(byte_fallback=True) if "ByteFallback" in kinds else None


def byte_rule(decoder: Mapping[str, Any] | None) -> ByteRule | None:
    """The rule for a decoder as ``tokenizer.json`` describes it; None if tokens depend on their neighbours."""
    if decoder is None:
        return None
    steps = _steps(decoder)
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return ByteRule(byte_level=True)
    if kinds == ["Metaspace"]:
        lead: Literal["keep", "marks"] = "keep" if steps[0].get("prepend_scheme") == "never" else "marks"
        mark = steps[0]["replacement"]
        return ByteRule(replace=((mark, " "),), lead=lead, mark=mark)
    return _sentencepiece_rule(steps) if _SENTENCEPIECE.fullmatch(" ".join(kinds)) else None


def _sentencepiece_rule(steps: Sequence[Mapping[str, Any]]) -> ByteRule | None:
    replace = []
    lead: Literal["keep", "space"] = "keep"
    for step in steps:
        if step["type"] == "Replace":
            if "String" not in step["pattern"]:
                return None
            replace.append((step["pattern"]["String"], step["content"]))
        elif step["type"] == "Strip":
            if step["stop"] or step["start"] > 1 or step["content"] != " ":
                return None
            lead = "space" if step["start"] else "keep"
    fallback = any(step["type"] == "ByteFallback" for step in steps)
    return ByteRule(replace=tuple(replace), byte_fallback=fallback, lead=lead)


class _Pieces(dict[int, bytes]):
    """Bytes by id, filled as ids are met. Unknown ids have none and are not kept."""

    def __init__(self, vocabulary: "Vocabulary", rule: ByteRule, hidden: frozenset[int]) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._rule = rule
        self._hidden = hidden

    def __missing__(self, token: int) -> bytes:
        spelling = self._vocabulary.spelling(token)
        if spelling is None:
            return b""
        piece = b"" if token in self._hidden else self._rule.piece(spelling)
        self[token] = piece
        return piece


class Vocabulary:
    """A tokenizer, for decoding only.

    Args:
        special: control tokens beside those that `tokenizer` itself marks as such.
        fingerprint: see `TokenizerFiles`.
    """

    def __init__(
        self, tokenizer: Tokenizer | PythonTokenizer, special: Iterable[int] = (), fingerprint: str = ""
    ) -> None:
        self._tokenizer = tokenizer
        self.fingerprint = fingerprint
        added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(special) | {token for token, entry in added.items() if entry.special}
        description = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else None
        rule = byte_rule(description)
        if rule is not None and not self._agrees(rule):
            log.warning("this tokenizer's decoder is not what its description says; decoding by windows")
            rule = None
        self.rule = rule
        self._characters = character_rule(description)
        if rule is not None:
            self._all = _Pieces(self, rule, frozenset())
            self._shown = _Pieces(self, rule, self.special)

    def spelling(self, token: int) -> str | None:
        """`token` as the vocabulary writes it; None for an id that is not in it."""
        return self._tokenizer.id_to_token(token) if token >= 0 else None

    def is_special(self, token: int) -> bool:
        """Whether `token` is a control token."""
        return token in self.special

    def decoder(self, tail: Sequence[int], skip_special: bool) -> Decoder:
        """A decoder for one choice behind a prompt that ends in `tail`."""
        if self.rule is not None:
            return ByteDecoder(self._shown if skip_special else self._all, self._first, tail)

        def decode(ids: Sequence[int]) -> str:
            return self.decode(ids, skip_special)

        def raw(token: int) -> bytes | None:
            return None if skip_special and token in self.special else self._part(token)

        if self._characters is not None and self._characters.byte_fallback:
            return FallbackDecoder(WindowDecoder(decode, raw, ()), raw, tail)
        return WindowDecoder(decode, raw, tail)

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        """The text of a whole sequence."""
        known = [token for token in ids if token >= 0 and not (skip_special and token in self.special)]
        return self._tokenizer.decode(known, skip_special_tokens=False)

    def _part(self, token: int) -> bytes | None:
        """What `token` may add to a character that others begin or end; None if it is not in the vocabulary."""
        spelling, rule = self.spelling(token), self._characters
        if spelling is None:
            return None
        if rule is None or (rule.byte_fallback and not _BYTE_TOKEN.fullmatch(spelling)):
            return b""
        return rule.piece(spelling)

    def _first(self, token: int) -> bytes:
        spelling = self.spelling(token)
        return self.rule.first(spelling) if self.rule is not None and spelling is not None else b""

    def _agrees(self, rule: ByteRule) -> bool:
        """Tries `rule` against the tokenizer itself on a sample of ids."""
        size = self._tokenizer.get_vocab_size()
        pieces = _Pieces(self, rule, frozenset())
        draw = random.Random(0)
        self.rule = rule
        for _ in range(64 if size else 0):
            ids = [draw.randrange(size) for _ in range(8)]
            wanted = self._tokenizer.decode(ids, skip_special_tokens=False)
            decoder = ByteDecoder(pieces, self._first, ())
            if REPLACEMENT not in wanted and decoder.feed(ids) + decoder.finish() != wanted:
                return False
        return True


def load(directory: Path) -> Vocabulary:
    """Reads the tokenizer files in `directory`. Raises ModelLoadError."""
    found = reader.read(directory)
    return Vocabulary(found.tokenizer, found.special_ids, found.fingerprint)

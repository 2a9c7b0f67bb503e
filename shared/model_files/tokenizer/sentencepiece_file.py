"""The vocabulary of a ``tokenizer.model``, without the library that made it.

A sentencepiece model is a protocol buffer: field 1 is repeated, one message for each piece, whose own field 1 is the
spelling. The id of a piece is its place.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")


class Form(Enum):
    """What a file called ``tokenizer.model`` is."""

    SENTENCEPIECE = auto()
    TIKTOKEN = auto()
    """Lines of base64 and rank."""
    OTHER = auto()


def form_of(path: Path) -> Form:
    """Looks into the file. Raises OSError."""
    with path.open("rb") as file:
        if _TIKTOKEN_LINE.match(file.readline(1024)):
            return Form.TIKTOKEN
    return Form.SENTENCEPIECE if pieces(path) else Form.OTHER


def pieces(path: Path) -> list[str]:
    """Spellings by id; none if the file is absent or of another form."""
    try:
        data = path.read_bytes() if path.is_file() else b""
        return [_spelling(value) for number, value in _fields(data) if number == 1]
    except (OSError, ValueError, IndexError):
        return []


def _spelling(piece: bytes) -> str:
    return next((value.decode() for number, value in _fields(piece) if number == 1), "")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message. Raises ValueError, IndexError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            yield key >> 3, data[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

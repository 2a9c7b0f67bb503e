"""Messages as bytes: ``[tag, version, fields]`` in msgpack."""

from typing import Any, ClassVar

import msgpack
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from radixmesh.shared.errors import MessageError

_HEAD = 64
"""Bytes at the start of a packed message that hold its tag."""


class Message(BaseModel):
    """Base of all messages. Equality is equality of the packed bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    VERSION: ClassVar[int] = 1
    TAG: ClassVar[str]

    _registry: ClassVar[dict[str, type["Message"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.TAG = cls.__name__
        Message._registry[cls.TAG] = cls

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and pack(self) == pack(other)

    __hash__ = None  # type: ignore[assignment]


class Part(BaseModel):
    """Base of the structures nested in messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, np.generic):
        return value.item()
    raise MessageError(f"cannot pack a {type(value).__name__}")


def pack(message: Message) -> bytes:
    """Packs a message as msgpack ``[tag, version, fields]``."""
    packed: bytes = msgpack.packb((message.TAG, message.VERSION, message.__dict__), default=_plain)
    return packed


def packed_size(part: Part) -> int:
    """Bytes that a part takes in a packed message."""
    return len(msgpack.packb(part.__dict__, default=_plain))


def unpack(data: bytes) -> Message:
    """Reads what `pack` wrote.

    Raises:
        MessageError: not msgpack, not of the form ``[tag, version, fields]``, an unknown tag or version, or a
            field that does not fit; the text names it.
    """
    try:
        envelope = msgpack.unpackb(data, strict_map_key=False)
    except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
        raise MessageError(f"payload of {len(data)} bytes is not msgpack: {error}") from error
    if not (isinstance(envelope, list) and len(envelope) == 3 and isinstance(envelope[2], dict)):
        raise MessageError("payload is not of the form [tag, version, fields]")
    tag, version, fields = envelope
    kind = Message._registry.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise MessageError(f"unknown message {str(tag)[:80]!r}")
    if version != kind.VERSION:
        raise MessageError(f"{tag} has version {str(version)[:40]}; this process speaks version {kind.VERSION}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"{tag}.{where}: {first['msg']}") from error


def tag_of(data: bytes) -> str:
    """The tag of what `pack` wrote, without reading the rest; empty if there is none that we know."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(data[:_HEAD])
    try:
        tag = unpacker.unpack() if unpacker.read_array_header() == 3 else None
    except Exception:  # noqa: BLE001  msgpack raises a dozen unrelated types for malformed input
        return ""
    return tag if isinstance(tag, str) and tag in Message._registry else ""

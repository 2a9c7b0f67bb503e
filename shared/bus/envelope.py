"""A message as a receiver gets it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from radixmesh.shared.messages import Message, unpack


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it came off the bus, not yet unpacked."""

    subject: str
    data: bytes
    reply: str
    headers: Mapping[str, str] | None
    arrived: float = field(default_factory=time.monotonic)
    """On this process's monotonic clock."""

    def unpack(self) -> Message:
        """Raises MessageError."""
        return unpack(self.data)

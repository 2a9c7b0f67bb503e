"""Who is there, and how they do."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Int64


class State(StrEnum):
    """How far a service is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Presence(Message):
    """A heartbeat: who is there, since when, and how they do."""

    service: str = Field(min_length=1)
    instance: str = Field(min_length=1)
    """Unique in the mesh. A scheduler's instance is its replica id."""
    epoch: Int64
    host: str = ""
    state: State
    detail: str = ""
    """Why not ready, for people."""
    model: str = ""
    interval: float = 1.0
    """Seconds between heartbeats; a receiver gives up after `presence.view.MISSED_BEATS` of them."""
    attributes: dict[str, Any] = {}
    """Load and limits, by service: see each service's `presence_attributes`."""


class Outdated(Message):
    """Tells the sender of a `Presence` that nobody heeds it: a higher epoch is known under its name."""

    instance: str
    epoch: Int64
    """The highest that is known."""
    quiet: float | None = None
    """Seconds since that one was last heard of; None if it has gone."""


class WhoIsThere(Message):
    """Asks everyone to send a `Presence` now."""

"""What the request table needs of its surroundings, and its limits."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from radixmesh.services.gateway.requests.request import Request
from radixmesh.shared.messages import Routed


class Load(NamedTuple):
    """Choices at a replica."""

    running: int
    waiting: int
    begun: int
    """Those of `waiting` that have had tokens, in this attempt or one before."""


class Mesh(Protocol):
    """What the table asks of presence."""

    def reachable(self) -> bool:
        """False while the bus is known to be away: nothing can be sent, and nothing will come."""
        ...

    def named(self, model: str) -> str:
        """The model that a client means by a name, or by none (empty); `model` itself where nobody knows."""
        ...

    def sampling_defaults(self, model: str) -> dict[str, float | int]:
        """Sampling fields that the model comes with; empty while nobody who is ready has told."""
        ...

    def missing(self, model: str) -> str:
        """What keeps `model` from being served, for people; empty if nothing does."""
        ...

    def unknown(self, model: str) -> bool:
        """True if the mesh serves models, and `model` is none of them."""
        ...

    def alive(self, instance: str, epoch: int) -> bool:
        """True if `instance` is there, in that very epoch."""
        ...

    def load(self, replica_id: str, quiet: float) -> Load | None:
        """What the replica told of itself within the last `quiet` seconds."""
        ...


class Observer:
    """Is told what metrics and traces want to know. Does nothing itself."""

    def routed(self, request: Request, routed: Routed) -> None:
        """An attempt has its replica."""

    def first_token(self, request: Request, now: float) -> None:
        """The request's first token has come, whatever its choice."""

    def gap(self, request: Request, seconds: float) -> None:
        """Time between two rows of one choice that brought tokens."""

    def redispatched(self, request: Request, reason: str) -> None:
        """The request goes round again; `request.attempt` is the new attempt."""

    def ended(self, request: Request, now: float) -> None:
        """Called exactly once for every request that was opened."""


@dataclass(frozen=True)
class Limits:
    """Seconds and counts; `GatewaySettings` says what each means."""

    ready_wait: float = 30.0
    route_timeout: float = 10.0
    stall_timeout: float = 60.0
    max_attempts: int = 5
    max_inflight: int = 4096
    max_pending_chars: int = 1 << 20
    client_timeout: float = 60.0

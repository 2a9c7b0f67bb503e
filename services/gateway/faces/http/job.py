"""What a face makes of a request, and what it says to what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from radixmesh.services.gateway.requests.prompt import Prompt
from radixmesh.services.gateway.requests.request import Delta, Request
from radixmesh.shared.errors import RequestError


class Framing(NamedTuple):
    """How a stream is cut into pieces."""

    media_type: str
    filler: bytes
    """A piece that all clients skip."""


EVENTS = Framing("text/event-stream; charset=utf-8", b":\n\n")
"""Server-sent events."""


class Answer(Protocol):
    """Writes one answer in a face's words: whole, or as the pieces of a stream, framed."""

    id: str
    """The answer's, which `X-Request-Id` tells too."""

    def whole(self) -> Any:
        """The answer in one piece, as JSON. All requests have ended well, and nothing was taken from them."""
        ...

    def chunk(self, prompt: int, delta: Delta) -> str:
        """What is new of one choice; empty if there is nothing that the client would see."""
        ...

    def end(self) -> str:
        """What stands behind the last chunk."""
        ...

    def failed(self, error: RequestError) -> str:
        """What ends an answer that cannot go on."""
        ...


@dataclass(frozen=True)
class Job:
    """A validated request: what to run, and how to answer."""

    prompts: Sequence[Prompt]
    stream: bool
    answer: Callable[[Sequence[Request]], Answer]
    """Called when the first of the requests, one a prompt, has something to say."""
    timeout: float | None = None
    """The client's own, seconds."""
    framing: Framing = EVENTS

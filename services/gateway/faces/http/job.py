"""What a face makes of a request, and what it says to what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from radixmesh.services.gateway.requests.prompt import Prompt
from radixmesh.services.gateway.requests.request import Delta, Request
from radixmesh.shared.errors import RequestError


class Answer(Protocol):
    """Writes one answer in a face's words: whole, or as server-sent events."""

    id: str
    """The answer's, which `X-Request-Id` tells too."""

    def whole(self) -> dict[str, Any]:
        """The answer in one piece. All requests have ended well, and nothing was taken from them."""
        ...

    def chunk(self, prompt: int, delta: Delta) -> str:
        """What is new of one choice as events; none if there is nothing that the client would see."""
        ...

    def end(self) -> str:
        """The events behind the last chunk."""
        ...

    def failed(self, error: RequestError) -> str:
        """The events that end an answer which cannot go on."""
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

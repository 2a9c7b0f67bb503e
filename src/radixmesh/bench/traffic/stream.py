"""Server-sent events, and what one chunk of a streamed answer says."""

import json
from typing import Any, NamedTuple

MAX_EVENT_BYTES = 16 << 20
DONE = b"[DONE]"
_FAILED_REASONS = frozenset({"error", "abort", "cancelled"})


class StreamError(Exception):
    """The server reported an error within the stream, or sent what is no stream of chunks."""


class SseParser:
    """Cuts bytes, wherever they were split, into the payloads of their events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes. Raises StreamError when one grows past MAX_EVENT_BYTES."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise StreamError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].strip())
            elif self._data and not line.strip():
                events.append(b"\n".join(self._data))
                self._data.clear()
        return events


class Usage(NamedTuple):
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None
    """Prompt tokens that came from the prefix cache; None when the server does not say."""


class Chunk(NamedTuple):
    output: bool
    """It stands for at least one generated token. Text may be empty: half a character, held back."""
    choice: bool
    """It belongs to the answer, though perhaps only to its opening (the role) or its end."""
    finish_reason: str | None
    usage: Usage | None


def read_chunk(payload: bytes) -> Chunk:
    """Raises StreamError for an error chunk, a failed finish reason, or anything that is no chunk."""
    try:
        chunk = json.loads(payload)
        if chunk.get("error") or chunk.get("object") == "error":
            raise StreamError(error_text(chunk))
        usage = _usage(chunk.get("usage"))
        choices = chunk.get("choices")
        if not choices:
            return Chunk(False, False, None, usage)
        choice = choices[0]
        reason = choice.get("finish_reason")
        if reason in _FAILED_REASONS:
            raise StreamError(f"the answer ended with finish_reason {reason!r}")
        if "text" in choice:
            output = bool(choice["text"]) or reason is None
        else:
            delta = choice["delta"]
            said = any(value for name, value in delta.items() if name != "role")
            output = said or (reason is None and "role" not in delta)
        return Chunk(output, True, reason, usage)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise StreamError(f"unreadable chunk: {payload[:120]!r}") from None


def error_text(answer: Any) -> str:
    """The message of an OpenAI error object, whichever of its forms the server uses."""
    if isinstance(answer, dict):
        inner = answer.get("error") or answer
        if isinstance(inner, dict):
            inner = inner.get("message") or inner.get("detail") or inner
        answer = inner
    return " ".join(str(answer).split())[:300]


def _usage(usage: dict[str, Any] | None) -> Usage | None:
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    return Usage(int(usage["prompt_tokens"]), int(usage["completion_tokens"]), None if cached is None else int(cached))

"""What the two OpenAI endpoints share of an answer: its choices, chunks and usage."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, Protocol

from radixmesh.services.gateway.faces.openai.schemas import StreamOptions
from radixmesh.services.gateway.fields.prompt import Prompt
from radixmesh.services.gateway.requests.request import Delta, LiveRequest
from radixmesh.shared.messages import Finish

FINISH_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.CANCELLED: "abort"}
DONE = b"data: [DONE]\n\n"

_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""JSON may hold these as they are, but clients that split events at Unicode's line ends would cut it there."""


def on_the_wire(text: str) -> bytes:
    """JSON, or events of it, as UTF-8 with no line end inside a string, whatever a client takes for one."""
    return (text if text.isascii() else text.translate(_LINE_ENDS)).encode()


class Style(Protocol):
    """How one endpoint writes an answer."""

    prefix: str
    """Of the answer's id."""

    def whole_object(self) -> str: ...

    def chunk_object(self) -> str: ...

    def chunk_body(self, text: str, reasoning: str, first: bool) -> str:
        """JSON members of a chunk's choice, from JSON strings of which one is empty; `first` for its first chunk.

        Args:
            text: always a JSON string, such as ``""``.
            reasoning: nothing at all where the chunk carries text.
        """
        ...

    def whole_body(self, text: str, reasoning: str) -> dict[str, Any]:
        """Members of a whole answer's choice that carry `text`, and what the model thought before it."""
        ...


@dataclass(frozen=True)
class Job:
    """A validated request: what to run, and how to answer."""

    style: Style
    n: int
    prompts: Sequence[Prompt]
    stream: bool
    usage: StreamOptions
    timeout: float | None = None
    """The client's own, seconds."""
    echo: Sequence[str] = ()
    """Empty, or per prompt the text to begin each of its choices with."""


def usage_of(lives: Sequence[LiveRequest]) -> dict[str, Any]:
    """OpenAI's usage, summed over the prompts. Each prompt counts once, whatever n."""
    prompt = sum(live.prompt_tokens for live in lives)
    output = sum(live.output_tokens for live in lives)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": sum(live.cached_tokens for live in lives)},
    }


class Answer:
    """Writes one answer, whole or in chunks. Chunks are glued from strings: this is the path of every token."""

    def __init__(self, job: Job, lives: Sequence[LiveRequest]) -> None:
        self.id = f"{job.style.prefix}-{lives[0].request_id}"
        self._job = job
        self._lives = lives
        self._created = int(time.time())
        self._started: set[int] = set()
        head = json.dumps({"object": job.style.chunk_object(), **self._common()})[:-1]
        self._head = f'data: {head}, "choices": ['
        self._tail = '], "usage": null}\n\n' if job.usage.include_usage else "]}\n\n"

    def _common(self) -> dict[str, Any]:
        model = self._lives[0].submit.model
        return {"id": self.id, "created": self._created, "model": model, "system_fingerprint": None}

    def chunk(self, prompt: int, delta: Delta) -> str:
        """A delta as server-sent events; none if it has nothing that the client would see.

        Thoughts come in events of their own: clients look for either, not for both.
        """
        if not delta.reasoning:
            return self._chunk(prompt, delta)
        thoughts = self._chunk(prompt, delta._replace(text="", finish=Finish.RUNNING))
        rest = delta._replace(reasoning="")
        return thoughts + self._chunk(prompt, rest)

    def _chunk(self, prompt: int, delta: Delta) -> str:
        index = prompt * self._job.n + delta.choice
        first = index not in self._started
        text = delta.text
        if first:
            self._started.add(index)
            text = self._job.echo[prompt] + text if self._job.echo else text
        if delta.finish is Finish.RUNNING:
            if not text and not delta.reasoning and not first:
                return ""
            end = '"finish_reason": null'
        else:
            why = f'"stop_reason": {json.dumps(delta.stop_reason)}, "matched_stop": {json.dumps(delta.matched_stop)}'
            end = f'"finish_reason": "{FINISH_REASONS[delta.finish]}", {why}'
        reasoning = encode_basestring(delta.reasoning) if delta.reasoning else ""
        body = self._job.style.chunk_body(encode_basestring(text), reasoning, first)
        tail = self._tail
        if self._job.usage.continuous_usage_stats:
            tail = f'], "usage": {json.dumps(usage_of(self._lives))}}}\n\n'
        return f'{self._head}{{"index": {index}, {body}, "logprobs": null, {end}}}{tail}'

    def end(self) -> str:
        """The last chunk, which has no choices but the usage; empty if the client did not ask for that."""
        if not self._job.usage.include_usage:
            return ""
        chunk = {
            "object": self._job.style.chunk_object(),
            **self._common(),
            "choices": [],
            "usage": usage_of(self._lives),
        }
        return f"data: {json.dumps(chunk)}\n\n"

    def whole(self) -> dict[str, Any]:
        """The answer in one piece; all prompts have ended well, and nothing was taken from them."""
        choices = [
            self._choice(prompt, delta)
            for prompt, live in enumerate(self._lives)
            for delta in sorted(live.take(), key=lambda delta: delta.choice)
        ]
        kind = self._job.style.whole_object()
        return {"object": kind, **self._common(), "choices": choices, "usage": usage_of(self._lives)}

    def _choice(self, prompt: int, delta: Delta) -> dict[str, Any]:
        text = self._job.echo[prompt] + delta.text if self._job.echo else delta.text
        return {
            "index": prompt * self._job.n + delta.choice,
            **self._job.style.whole_body(text, delta.reasoning),
            "logprobs": None,
            "finish_reason": FINISH_REASONS[delta.finish],
            "stop_reason": delta.stop_reason,
            "matched_stop": delta.matched_stop,
        }

"""What the two OpenAI endpoints share of an answer: its choices, chunks and usage."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any, ClassVar

from radixmesh.services.gateway.faces.http.errors import error_object
from radixmesh.services.gateway.faces.openai.schemas import OpenAIRequest, StreamOptions
from radixmesh.services.gateway.requests.request import FINISH_REASONS, Delta, Request
from radixmesh.shared.errors import RequestError
from radixmesh.shared.messages import Finish

DONE = "data: [DONE]\n\n"


def usage_of(requests: Sequence[Request]) -> dict[str, Any]:
    """OpenAI's usage, summed over the prompts. Each prompt counts once, whatever n."""
    prompt = sum(request.prompt_tokens for request in requests)
    output = sum(request.output_tokens for request in requests)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": sum(request.cached_tokens for request in requests)},
    }


class OpenAIAnswer(ABC):
    """Writes one answer, whole or in chunks. Chunks are glued from strings: this is the path of every token.

    Args:
        asked: what the client wants.
        echo: empty, or per prompt the text to begin each of its choices with.
        requests: what runs for it, one a prompt.
    """

    prefix: ClassVar[str]
    """Of the answer's id."""
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, asked: OpenAIRequest, echo: Sequence[str], requests: Sequence[Request]) -> None:
        self.id = f"{self.prefix}-{requests[0].request_id}"
        self._n = asked.n
        self._usage = asked.stream_options or StreamOptions()
        self._echo = echo
        self._requests = requests
        self._created = int(time.time())
        self._started: set[int] = set()
        head = json.dumps({"object": self.chunk_object, **self._common()})[:-1]
        self._head = f'data: {head}, "choices": ['
        self._tail = '], "usage": null}\n\n' if self._usage.include_usage else "]}\n\n"

    @abstractmethod
    def chunk_body(self, text: str, reasoning: str, first: bool) -> str:
        """JSON members of a chunk's choice, from JSON strings of which one is empty; `first` for its first chunk.

        Args:
            text: always a JSON string, such as ``""``.
            reasoning: nothing at all where the chunk carries text.
        """

    @abstractmethod
    def whole_body(self, text: str, reasoning: str) -> dict[str, Any]:
        """Members of a whole answer's choice that carry `text`, and what the model thought before it."""

    def chunk(self, prompt: int, delta: Delta) -> str:
        """A delta as server-sent events; none if it has nothing that the client would see.

        Thoughts come in events of their own: clients look for either, not for both.
        """
        if not delta.reasoning:
            return self._chunk(prompt, delta)
        thoughts = self._chunk(prompt, delta._replace(text="", finish=Finish.RUNNING))
        rest = delta._replace(reasoning="")
        return thoughts + self._chunk(prompt, rest)

    def end(self) -> str:
        """The usage in a chunk without choices, if the client asked for it, and the word that this was all."""
        if not self._usage.include_usage:
            return DONE
        chunk = {"object": self.chunk_object, **self._common(), "choices": [], "usage": usage_of(self._requests)}
        return f"data: {json.dumps(chunk)}\n\n{DONE}"

    def failed(self, error: RequestError) -> str:
        """The error in place of a chunk. Nothing follows it."""
        return f"data: {json.dumps(error_object(error))}\n\n"

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choices = [
            self._choice(prompt, delta)
            for prompt, request in enumerate(self._requests)
            for delta in sorted(request.take(), key=lambda delta: delta.choice)
        ]
        return {
            "object": self.whole_object,
            **self._common(),
            "choices": choices,
            "usage": usage_of(self._requests),
        }

    def _common(self) -> dict[str, Any]:
        model = self._requests[0].submit.model
        return {"id": self.id, "created": self._created, "model": model, "system_fingerprint": None}

    def _chunk(self, prompt: int, delta: Delta) -> str:
        index = prompt * self._n + delta.choice
        first = index not in self._started
        text = delta.text
        if first:
            self._started.add(index)
            text = self._echo[prompt] + text if self._echo else text
        if delta.finish is Finish.RUNNING:
            if not text and not delta.reasoning and not first:
                return ""
            end = '"finish_reason": null'
        else:
            why = f'"stop_reason": {json.dumps(delta.stop_reason)}, "matched_stop": {json.dumps(delta.matched_stop)}'
            end = f'"finish_reason": "{FINISH_REASONS[delta.finish]}", {why}'
        reasoning = encode_basestring(delta.reasoning) if delta.reasoning else ""
        body = self.chunk_body(encode_basestring(text), reasoning, first)
        tail = self._tail
        if self._usage.continuous_usage_stats:
            tail = f'], "usage": {json.dumps(usage_of(self._requests))}}}\n\n'
        return f'{self._head}{{"index": {index}, {body}, "logprobs": null, {end}}}{tail}'

    def _choice(self, prompt: int, delta: Delta) -> dict[str, Any]:
        text = self._echo[prompt] + delta.text if self._echo else delta.text
        return {
            "index": prompt * self._n + delta.choice,
            **self.whole_body(text, delta.reasoning),
            "logprobs": None,
            "finish_reason": FINISH_REASONS[delta.finish],
            "stop_reason": delta.stop_reason,
            "matched_stop": delta.matched_stop,
        }

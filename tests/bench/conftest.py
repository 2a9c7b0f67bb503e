"""A real HTTP server on loopback that answers like OpenAI's, with knobs for what can go wrong."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class FakeServer:
    per_chunk: int = 1
    """Tokens in a chunk."""
    delay: float = 0.0
    """Seconds before each chunk."""
    usage: bool = True
    continuous_usage: bool = False
    cached: int | None = None
    shorten: int = 0
    """Tokens that answers lack."""
    status: int = 200
    error_after: int | None = None
    """Chunks before an error chunk."""
    cut_after: int | None = None
    """Chunks before the connection closes."""
    end_after: int | None = None
    """Chunks before the body ends, in good form but with neither finish reason nor [DONE]."""
    finish_reason: str = "length"
    plain_json: bool = False
    hang: bool = False
    fail_every: int = 0
    vocab_size: object = None
    """What /v1/models tells."""
    largest_id: int | None = None
    """Prompts with larger ones are refused."""
    lists_models: bool = True
    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    arrived: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    """An entry per request."""
    in_flight: int = 0
    peak: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/completions", self.generate)
        app.router.add_post("/v1/chat/completions", self.generate)
        return app

    async def requests(self, count: int) -> None:
        """Returns when so many more have arrived."""
        for _ in range(count):
            await asyncio.wait_for(self.arrived.get(), 30)

    async def models(self, request: web.Request) -> web.Response:
        if not self.lists_models:
            raise web.HTTPNotFound
        told = {} if self.vocab_size is None else {"vocab_size": self.vocab_size}
        return web.json_response({"data": [{"id": "tiny", **told}, {"id": "other"}]})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            return await self._generate(request)
        finally:
            self.in_flight -= 1

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        self.arrived.put_nowait(None)
        self.headers.append(dict(request.headers))
        failing = self.fail_every and len(self.seen) % self.fail_every == 0
        if self.status != 200 or failing:
            status = 503 if failing else self.status
            return web.json_response({"error": {"message": "no such luck", "code": status}}, status=status)
        if self.largest_id is not None and max(body["prompt"]) > self.largest_id:
            message = f"token id {max(body['prompt'])} is outside the model's vocabulary (0 to {self.largest_id})"
            return web.json_response({"error": {"message": message}}, status=400)
        if self.plain_json:
            return web.json_response({"choices": [{"text": "hi", "finish_reason": "stop"}]})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.hang:
            await asyncio.sleep(3600)
        chat = "messages" in body
        if chat:
            await self._event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        prompt = body["messages"][0]["content"].split() if chat else body["prompt"]
        total = body["max_tokens"] - self.shorten
        made = chunks = 0
        while made < total:
            if self.delay:
                await asyncio.sleep(self.delay)
            if chunks == self.error_after:
                await self._event(response, {"error": {"message": "worker died", "code": 500}})
                return response
            if chunks == self.cut_after:
                assert request.transport is not None
                request.transport.close()
                return response
            if chunks == self.end_after:
                return response
            made = min(total, made + self.per_chunk)
            chunks += 1
            choice: dict[str, Any] = {"delta": {"content": "x"}} if chat else {"text": "x"}
            event: dict[str, Any] = {"choices": [choice | {"finish_reason": None}]}
            if self.continuous_usage:
                event["usage"] = self._usage(len(prompt), made)
            await self._event(response, event)
        last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        await self._event(response, {"choices": [last | {"finish_reason": self.finish_reason}]})
        if self.usage:
            await self._event(response, {"choices": [], "usage": self._usage(len(prompt), total)})
        await response.write(b"data: [DONE]\n\n")
        return response

    def _usage(self, prompt: int, output: int) -> dict[str, Any]:
        details = None if self.cached is None else {"cached_tokens": self.cached}
        return {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": details}

    async def _event(self, response: web.StreamResponse, event: dict[str, Any]) -> None:
        await response.write(b": beat\n\ndata: " + json.dumps(event).encode() + b"\r\n\r\n")


@pytest.fixture
async def server(processes: None) -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    host = TestServer(fake.app(), host="127.0.0.1")
    await host.start_server()
    fake.url = f"http://127.0.0.1:{host.port}"
    try:
        yield fake
    finally:
        await host.close()

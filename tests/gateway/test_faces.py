"""Another face than those there are: what it takes, and what it gets for it. One that speaks in lines of JSON."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.faces.http import connection
from radixmesh.services.gateway.faces.http.application import application
from radixmesh.services.gateway.faces.http.endpoint import Endpoint
from radixmesh.services.gateway.faces.http.job import Framing, Job
from radixmesh.services.gateway.faces.http.server import HttpServer
from radixmesh.services.gateway.faces.http.streams import runs
from radixmesh.services.gateway.fields.prompt import make_prompt
from radixmesh.services.gateway.fields.sampling import Sampling
from radixmesh.services.gateway.fields.schema import read_fields
from radixmesh.services.gateway.requests.request import Delta, Request
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.errors import RequestError
from tests.gateway.ring import Ring, words

LINES = Framing("application/x-ndjson", b"\n")
KEY = {"x-api-key": "s3cret"}


class Fields(Sampling):
    """What a client may say."""

    ask: str
    stream: bool = False


class LineAnswer:
    """A line for each piece."""

    def __init__(self, last: str, requests: Sequence[Request]) -> None:
        self.id = f"line-{requests[0].request_id}"
        self._last = last
        self._requests = requests

    def whole(self) -> dict[str, Any]:
        return {"said": "".join(delta.text for request in self._requests for delta in request.take())}

    def chunk(self, prompt: int, delta: Delta) -> str:
        return json.dumps({"piece": delta.text}) + "\n" if delta.text else ""

    def end(self) -> str:
        return json.dumps({"done": self._last}) + "\n"

    def failed(self, error: RequestError) -> str:
        return json.dumps({"failed": error.message}) + "\n"


def line_job(data: dict[str, Any]) -> Job:
    asked = read_fields(Fields, data)
    if asked.ask == "crash":
        raise RuntimeError("a fault of this face")
    prompt = make_prompt("", asked, asked.params(), asked.ask)
    return Job([prompt], asked.stream, partial(LineAnswer, "good bye"), framing=LINES)


def line_error(error: RequestError, status: int) -> dict[str, Any]:
    return {"wrong": error.message, "status": status}


async def greet(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


@pytest.fixture
async def url(gateway: Gateway) -> AsyncIterator[str]:
    """Of the face alone."""
    endpoints = [
        Endpoint("POST", "/lines", runs(line_job, gateway.submitter), error_form=line_error),
        Endpoint("GET", "/greeting", greet, open=True),
    ]
    settings = GatewaySettings(api_key=SecretStr("s3cret"), max_body_bytes=4096)
    server = HttpServer(application(endpoints, gateway.metrics, settings), "127.0.0.1", 0)
    yield await server.start()
    await server.stop()


@pytest.fixture
async def lines(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the key."""
    async with aiohttp.ClientSession(url, headers=KEY) as session:
        yield session


async def test_an_answer_in_one_piece(lines: aiohttp.ClientSession, ring: Ring) -> None:
    async with lines.post("/lines", json={"ask": "echo:3", "max_tokens": 9, "user": "x"}) as response:
        assert (response.status, await response.json()) == (200, {"said": words(3)})
        assert response.headers["X-Request-Id"] == f"line-{ring.submits[0].request_id}"
    assert ring.submits[0].work.params.max_tokens == 9


async def test_a_stream_in_its_own_words(lines: aiohttp.ClientSession) -> None:
    async with lines.post("/lines", json={"ask": "echo:3", "stream": True}) as response:
        assert response.content_type == "application/x-ndjson"
        said = [json.loads(line) for line in (await response.text()).splitlines()]
    assert "".join(line.get("piece", "") for line in said) == words(3)
    assert said[-1] == {"done": "good bye"}
    async with lines.post("/lines", json={"ask": "failmid:internal_error", "stream": True}) as response:
        said = [json.loads(line) for line in (await response.text()).splitlines()]
    assert said[-1] == {"failed": "told internal_error"}


@pytest.mark.parametrize(
    ("sent", "status", "says"),
    [
        ({"json": {}}, 400, "ask: this field is required"),
        ({"json": {"ask": "x", "top_p": 7}}, 400, "top_p"),
        ({"json": {"ask": "x", "regex": "a+"}}, 400, "regex: not supported yet"),
        ({"json": {"ask": "x" * 5000}}, 413, "over the limit of 4096 bytes"),
        ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        ({"data": b"ask"}, 415, "application/json"),
        ({"json": {"ask": "fail:queue_full"}}, 429, "told queue_full"),
        ({"json": {"ask": "crash"}}, 500, "the gateway failed"),
        ({"json": {"ask": "x"}, "headers": {"x-api-key": "no"}}, 401, "API key"),
    ],
)
async def test_every_error_has_the_form_of_the_face(
    lines: aiohttp.ClientSession, sent: dict[str, Any], status: int, says: str
) -> None:
    async with lines.post("/lines", **sent) as response:
        body = await response.json()
        assert set(body) == {"wrong", "status"}
        assert (response.status, body["status"]) == (status, status)
        assert says in body["wrong"]


async def test_what_belongs_to_no_face_is_told_in_the_common_form(lines: aiohttp.ClientSession) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/lines", 405)):
        async with lines.request(method, path) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (status, "invalid_request")
    async with lines.get("/") as response:
        assert (await response.json())["endpoints"] == ["GET /", "GET /greeting", "POST /lines"]
    for headers in ({"x-api-key": ""}, KEY):
        async with lines.get("/greeting", headers=headers) as response:
            assert await response.text() == "hello"


async def test_a_client_at_its_end_of_input_is_probed_with_what_its_clients_skip(
    url: str, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PROBE_AFTER", 0.2)
    body = json.dumps({"ask": "held:1", "stream": True}).encode()
    head = f"POST /lines HTTP/1.1\r\nHost: x\r\nx-api-key: s3cret\r\nContent-Length: {len(body)}\r\n"
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    writer.write_eof()
    seen = b""
    while b"\r\n1\r\n\n\r\n" not in seen:  # a chunk of one line end
        seen += await reader.readuntil(b"\n")
    assert b'{"piece"' in seen
    ring.release.set()
    assert (await reader.read()).endswith(b'{"done": "good bye"}\n\r\n0\r\n\r\n')
    writer.close()

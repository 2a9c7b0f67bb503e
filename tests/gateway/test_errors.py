"""Every way to be refused over HTTP: its status, its code, and the field it names."""

import asyncio
import gzip
import io
import json
import logging
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from radixmesh.services.gateway.faces.grpc.statuses import STATUSES as GRPC_STATUSES
from radixmesh.services.gateway.faces.http.errors import STATUSES as HTTP_STATUSES
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.errors import ErrorCode
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import MODEL, Ring

JSON = {"Content-Type": "application/json"}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


async def post(http: aiohttp.ClientSession, path: str, sent: Any) -> tuple[int, dict[str, Any], Any]:
    data = io.BytesIO(sent if isinstance(sent, bytes) else json.dumps(sent).encode())
    async with http.post(path, data=data, headers=JSON) as response:
        body = await response.json()
        error = body["error"]
        assert set(error) == {"message", "type", "param", "code"}
        flat = {"object": "error", **error, "code": response.status}
        assert {name: body[name] for name in flat} == flat  # the form of servers other than OpenAI's
        assert error["message"]
        return response.status, error, response.headers


def text(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": "echo:1", **fields}


def chat(*contents: Any, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content} for content in contents or ("hi",)]
    return {"model": MODEL, "messages": messages, **fields}


def test_every_code_has_a_face() -> None:
    assert set(HTTP_STATUSES) == set(GRPC_STATUSES) == set(ErrorCode)


def test_the_http_faces_do_not_need_grpc() -> None:
    faces = "radixmesh.services.gateway.faces"
    loaded = f"import sys, {faces}.http.application, {faces}.openai.face, {faces}.operators.face"
    loaded += "; print([name for name in sys.modules if 'grpc' in name])"
    done = subprocess.run([sys.executable, "-P", "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


BAD_FIELDS = [
    (TEXT, text(model="m" * 257), "model"),
    (TEXT, text(model=5), "model"),
    (TEXT, {"model": MODEL}, "prompt"),
    (TEXT, text(prompt=""), "prompt"),
    (TEXT, text(prompt=[]), "prompt"),
    (TEXT, text(prompt=["a", 1]), "prompt"),
    (TEXT, text(prompt=["a", ""]), "prompt"),
    (TEXT, text(prompt=[1, -1]), "prompt"),
    (TEXT, text(prompt=[1, 2**31]), "prompt"),
    (TEXT, text(prompt=[True]), "prompt"),
    (TEXT, text(prompt=[[1], []]), "prompt"),
    (TEXT, text(prompt=["x"] * 129), "prompt"),
    (TEXT, text(prompt={"a": 1}), "prompt"),
    (TEXT, text(prompt=[1, 2], echo=True), "echo"),
    (TEXT, text(n=0), "n"),
    (TEXT, text(timeout=0), "timeout"),
    (TEXT, text(n=129), "n"),
    (TEXT, text(n="2"), "n"),
    (TEXT, text(n=1.5), "n"),
    (TEXT, text(temperature=2.1), "temperature"),
    (TEXT, text(temperature=-0.1), "temperature"),
    (TEXT, text(temperature="hot"), "temperature"),
    (TEXT, text(top_p=0), "top_p"),
    (TEXT, text(top_k=-2), "top_k"),
    (TEXT, text(min_p=1.5), "min_p"),
    (TEXT, text(presence_penalty=3), "presence_penalty"),
    (TEXT, text(frequency_penalty=-3), "frequency_penalty"),
    (TEXT, text(repetition_penalty=0), "repetition_penalty"),
    (TEXT, text(repetition_penalty=1e-320), "repetition_penalty"),
    (TEXT, text(repetition_penalty=1e-37), "repetition_penalty"),
    (TEXT, text(repetition_penalty=10**400), "repetition_penalty"),
    (TEXT, text(temperature=-1e-320), "temperature"),
    (TEXT, text(logit_bias={"5": 10**400}), "logit_bias.5"),
    (TEXT, text(max_tokens=0), "max_tokens"),
    (TEXT, text(max_tokens=10**30), "max_tokens"),
    (TEXT, text(min_tokens=17), "min_tokens"),
    (TEXT, text(seed=2**64), "seed"),
    (TEXT, text(stop=["a"] * 17), "stop"),
    (TEXT, text(stop="x" * 257), "stop.0"),
    (TEXT, text(stop=["ok", 3]), "stop.1"),
    (TEXT, text(stop_token_ids=[-1]), "stop_token_ids.0"),
    (TEXT, text(logit_bias={"5": 101}), "logit_bias.5"),
    (TEXT, text(logit_bias={str(i): 1 for i in range(1025)}), "logit_bias"),
    (TEXT, text(stream="yes"), "stream"),
    (TEXT, text(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage"),
    (TEXT, text(priority=2**31), "priority"),
    (TEXT, text(cache_salt="s" * 257), "cache_salt"),
    (TEXT, text(logprobs=1), "logprobs"),
    (TEXT, text(best_of=3), "best_of"),
    (TEXT, text(suffix="end"), "suffix"),
    (CHAT, {"model": MODEL, "messages": []}, "messages"),
    (CHAT, {"model": MODEL, "messages": [{"role": "poet", "content": "x"}]}, "messages.0.role"),
    (CHAT, {"model": MODEL, "messages": ["x"]}, "messages.0"),
    (CHAT, chat("a", 5), "messages.1.content"),
    (CHAT, chat([{"type": "image_url", "image_url": {"url": "x"}}]), "messages.0.content.0.type"),
    (CHAT, chat([{"type": "text"}]), "messages.0.content.0.text"),
    (CHAT, chat(tools=[{"type": "function"}]), "tools"),
    (CHAT, chat(response_format={"type": "json_object"}), "response_format"),
    (CHAT, chat(logprobs=True), "logprobs"),
    (CHAT, chat(max_completion_tokens=0), "max_completion_tokens"),
    (CHAT, chat(chat_template_kwargs=[1]), "chat_template_kwargs"),
]


async def test_bad_fields_are_named(http: aiohttp.ClientSession, ring: Ring) -> None:
    for path, body, param in BAD_FIELDS:
        status, error, _ = await post(http, path, body)
        assert (status, error["param"], error["code"]) == (400, param, "invalid_request"), (body, error)
        assert error["type"] == "invalid_request_error"
        assert param.split(".")[0] in error["message"]
    assert ring.submits == []


async def test_too_many_sequences(http: aiohttp.ClientSession) -> None:
    status, error, _ = await post(http, TEXT, text(prompt=["x"] * 20, n=100))
    assert (status, error["param"]) == (400, None)
    assert "2000" in error["message"]


async def test_harmless_values_of_unsupported_fields_pass(http: aiohttp.ClientSession) -> None:
    body = chat(tools=[], tool_choice="none", response_format={"type": "text"}, logprobs=False, n=None, unheard_of=1)
    async with http.post(CHAT, json=body) as response:
        assert response.status == 200
    async with http.post(TEXT, json=text(best_of=2, n=2, suffix=None, logprobs=None)) as response:
        assert response.status == 200


BAD_BODIES = [
    (b"", "not JSON"),
    (b'{"model": "m", }', "line 1, column 16"),
    (b'{"model": "\xff"}', "not UTF-8"),
    (b"[1]", "must be a JSON object"),
    (b'{"model": "m", "temperature": NaN}', "NaN"),
    (b'{"model": "m", "temperature": -Infinity}', "Infinity"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply"),
    (b'{"a": ' + b"9" * 10_000 + b"}", "too many digits"),
    (b'{"model": "m", "prompt": "\\ud800"}', "surrogate"),
]


async def test_bad_bodies_are_explained(http: aiohttp.ClientSession) -> None:
    for body, word in BAD_BODIES:
        status, error, _ = await post(http, TEXT, body)
        assert (status, error["code"]) == (400, "invalid_request"), body[:40]
        assert word in error["message"]


@pytest.mark.parametrize("number", ["1e999", "-1E+0400", "1" + "0" * 309 + ".0", "1" + "0" * 250 + "e60", "NaN"])
async def test_numbers_that_are_not_finite_are_named(http: aiohttp.ClientSession, ring: Ring, number: str) -> None:
    """Also where no schema looks: in what only a chat template sees."""
    for path, param in ((TEXT, "temperature"), (CHAT, "chat_template_kwargs.a.0")):
        fields = {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": [0.5]}}
        body = json.dumps(
            {"model": MODEL, "prompt": "x", "temperature": 0.5} if path == TEXT else {"model": MODEL, **fields}
        )
        status, error, _ = await post(http, path, body.replace("0.5", number).encode())
        assert (status, error["param"]) == (400, param)
        assert "finite" in error["message"]
    assert ring.submits == []


async def test_numbers_at_the_edge_of_what_is_finite_are_served(http: aiohttp.ClientSession) -> None:
    for name, value in (
        ("temperature", 1e-320),
        ("temperature", 1e-6),
        ("top_p", 1e-320),
        ("min_p", 1e-320),
        ("repetition_penalty", 1e-6),
        ("presence_penalty", 1e-320),
    ):
        async with http.post(TEXT, json=text(**{name: value})) as response:
            assert response.status == 200, name


async def test_surrogate_pairs_are_fine(http: aiohttp.ClientSession, ring: Ring) -> None:
    async with http.post(TEXT, data=b'{"model": "toy/model", "prompt": "\\ud83d\\ude00"}', headers=JSON) as response:
        assert response.status == 200
    assert ring.submits[0].text == "\N{GRINNING FACE}"


async def test_protocol_errors(http: aiohttp.ClientSession) -> None:
    async with http.post(TEXT, data="x=1", headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
        assert "application/json" in (await response.json())["error"]["message"]
    async with http.get("/v1/nothing") as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"] == "there is no /v1/nothing"
    async with http.get(TEXT) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "POST"
        assert "error" in await response.json()


async def test_unknown_model_where_names_are_strict(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(strict_model_names=True)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        status, error, _ = await post(http, TEXT, text(model="nobody"))
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        for left_out in ({}, {"model": None}, {"model": ""}, {"model": MODEL}):
            async with http.post(TEXT, json={"prompt": "echo:1", **left_out}) as response:
                assert response.status == 200


async def test_the_only_model_goes_by_any_name(http: aiohttp.ClientSession, ring: Ring) -> None:
    for given in ({}, {"model": None}, {"model": ""}, {"model": "gpt-17"}, {"model": MODEL.upper()}):
        for path, body in ((TEXT, {"prompt": "echo:1"}), (CHAT, {"messages": [{"role": "user", "content": "echo:1"}]})):
            async with http.post(path, json={**body, **given}) as response:
                assert (response.status, (await response.json())["model"]) == (200, MODEL)
            async with http.post(path, json={**body, **given, "stream": True}) as response:
                first = json.loads((await response.content.readline()).removeprefix(b"data: "))
                assert first["model"] == MODEL
    assert {submit.model for submit in ring.submits} == {MODEL}


async def test_several_models_go_by_their_names(http: aiohttp.ClientSession, ring: Ring, gateway: Gateway) -> None:
    await ring.bus.publish(
        ring._subjects.presence("scheduler"),
        ring.scheduler.beat().model_copy(update={"instance": "other", "model": "toy/other", "interval": 60.0}),
    )
    await ring.until(lambda: len(gateway.submitter.mesh.models()) == 2)
    status, error, _ = await post(http, TEXT, text(model="nobody"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    status, error, _ = await post(http, TEXT, {"prompt": "x"})
    assert (status, error["code"], error["param"]) == (400, "invalid_request", "model")
    async with http.post(TEXT, json=text()) as response:
        assert response.status == 200


async def test_an_unknown_model_is_not_described(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models/nobody") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("context_length_exceeded", 400, "invalid_request_error"),
        ("queue_full", 429, "rate_limit_error"),
        ("deadline_exceeded", 504, "timeout_error"),
        ("internal_error", 500, "server_error"),
    ],
)
async def test_failures_in_the_ring(http: aiohttp.ClientSession, code: str, status: int, kind: str) -> None:
    for stream in (False, True):
        got, error, headers = await post(http, TEXT, text(prompt=f"fail:{code}", stream=stream))
        assert (got, error["type"], error["code"]) == (status, kind, code)
        assert (error["param"], error["message"]) == ("prompt", f"told {code}")
        assert headers.get("Retry-After") == ("7" if code == "queue_full" else None)


async def test_failure_in_mid_stream(http: aiohttp.ClientSession) -> None:
    async with http.post(TEXT, json=text(prompt="failmid:internal_error", stream=True)) as response:
        assert response.status == 200
        events = [line[6:] for line in (await response.text()).splitlines() if line]
    assert json.loads(events[-1])["error"]["code"] == "internal_error"
    assert all("choices" in json.loads(event) for event in events[:-1])


async def test_sizes(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_body_bytes=3_000_000)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        status, error, _ = await post(http, TEXT, text(prompt="x" * 3_000_000))
        assert (status, error["code"]) == (413, "request_too_large")
        assert "3000000" in error["message"]

        async def chunks() -> Any:
            for _ in range(40):
                yield b"x" * 100_000

        async with http.post(TEXT, data=chunks(), headers=JSON) as response:
            assert response.status == 413
        # Under the gateway's limit, over the bus's of 1 MiB.
        for stream in (False, True):
            status, error, _ = await post(http, TEXT, text(prompt="x" * 2_000_000, stream=stream))
            assert (status, error["code"]) == (413, "request_too_large")
            assert "1048576" in error["message"]
        async with http.post(TEXT, json=text()) as response:
            assert response.status == 200


async def test_too_many_in_work(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_inflight=2)
    await ring.until(lambda: not gateway.not_ready())
    async with (
        aiohttp.ClientSession(gateway.http_url) as http,
        http.post(TEXT, json=text(prompt="silence:1", stream=True)) as response,
    ):
        await response.content.readline()
        status, error, headers = await post(http, TEXT, text(prompt=["a", "b"]))
        assert (status, error["code"], headers["Retry-After"]) == (429, "queue_full", "1")
        assert len(gateway.submitter.table) == 1


async def test_deadline(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(request_timeout=0.4)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        status, error, _ = await post(http, TEXT, text(prompt="silence:2"))
        assert (status, error["code"]) == (504, "deadline_exceeded")
        async with http.post(TEXT, json=text(prompt="silence:2", stream=True)) as response:
            events = [line[6:] for line in (await response.text()).splitlines() if line]
        assert json.loads(events[-1])["error"]["code"] == "deadline_exceeded"
    await ring.until(lambda: len({name for name, _ in ring.cancels}) == 2)


async def test_a_client_may_bound_its_own_wait(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    status, error, _ = await post(http, TEXT, text(prompt="silence:2", timeout=0.2))
    assert (status, error["code"]) == (504, "deadline_exceeded")


async def test_compressed_bodies_are_not_inflated(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    async with http.post(TEXT, data=gzip.compress(b" " * 10_000_000), headers=headers) as response:
        assert response.status == 415
        assert "Content-Encoding" in (await response.json())["error"]["message"]


async def test_a_body_that_does_not_come(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(client_timeout=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.http_url.rpartition(":")[2]))
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
    writer.write(head.encode() + b"{")
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_api_key(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(api_key="s3cret")
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"X-API-Key": "wrong"},
        ):
            async with http.get("/v1/models", headers=headers) as response:
                assert response.status == 401
                assert (await response.json())["error"]["code"] == "invalid_api_key"
        for headers in ({"Authorization": "Bearer s3cret"}, {"x-api-key": "s3cret"}):
            async with http.get("/v1/models", headers=headers) as response:
                assert response.status == 200
        for path in ("/health", "/ping", "/ready", "/metrics"):
            async with http.get(path) as response:
                assert response.status == 200


_POST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GARBAGE = {
    "no request line": b"\x00\xff not http\r\n\r\n",
    "a header over the limit": b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "a chunk without a size": _POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_on_the_socket_harms_nobody(
    gateway: Gateway, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.http_url.rpartition(":")[2]))
    writer.write(sent)
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.readline()
    writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    async with http.post(TEXT, json=text()) as response:
        assert response.status == 200

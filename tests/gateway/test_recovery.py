"""Streams that outlive what carries them, clients that leave, and gateways that wait and end in order."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.messages import State
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import MODEL, Ring, word, words

TEXT = "/v1/completions"


def body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, "max_tokens": 500, **fields}


async def streamed(http: aiohttp.ClientSession, prompt: str, **fields: Any) -> list[dict[str, Any]]:
    """All events of a stream that must end with [DONE]."""
    async with http.post(TEXT, json=body(prompt, stream=True, **fields)) as response:
        assert response.status == 200, await response.text()
        events = [line[6:] for line in (await response.text()).splitlines() if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def texts(events: list[dict[str, Any]], n: int = 1) -> list[str]:
    """Each choice's text; each must have ended exactly once."""
    choices = [event["choices"][0] for event in events]
    assert sorted(c["index"] for c in choices if c["finish_reason"]) == list(range(n))
    return ["".join(c["text"] for c in choices if c["index"] == index) for index in range(n)]


@pytest.mark.parametrize(
    ("prompt", "count", "attempts"), [("gap", 8, 2), ("death", 9, 2), ("lost:2", 12, 3), ("notready", 4, 2)]
)
async def test_the_stream_is_unbroken(
    http: aiohttp.ClientSession, ring: Ring, prompt: str, count: int, attempts: int
) -> None:
    events = await streamed(http, prompt)
    assert texts(events) == [words(count)]
    assert [submit.attempt for submit in ring.submits] == list(range(attempts))
    assert len({submit.request_id for submit in ring.submits}) == 1
    if prompt != "notready":
        await ring.until(lambda: len(ring.cancels) == attempts - 1)
        assert [attempt for _, attempt in ring.cancels] == list(range(attempts - 1))


async def test_only_unfinished_choices_go_round_again(http: aiohttp.ClientSession, ring: Ring) -> None:
    events = await streamed(http, "lost:2", n=2)
    assert texts(events, 2) == [words(12), words(12, 1)]
    last = ring.submits[-1]
    assert [(choice.index, len(choice.resumed)) for choice in last.choices] == [(0, 4), (1, 4)]


async def test_usage_counts_each_token_once(http: aiohttp.ClientSession) -> None:
    async with http.post(TEXT, json=body("death")) as response:
        answer = await response.json()
    assert answer["choices"][0]["text"] == words(9)
    assert answer["usage"]["completion_tokens"] == 9
    assert answer["usage"]["prompt_tokens"] == 7


async def test_attempts_are_bounded(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_attempts=3)
    await ring.until(lambda: not gateway.not_ready())
    async with (
        aiohttp.ClientSession(gateway.http_url) as http,
        http.post(TEXT, json=body("fail:replica_lost")) as response,
    ):
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "replica_lost"
    assert len(ring.submits) == 3
    assert len(gateway.submitter.table) == 0


async def test_a_tokenizer_that_does_not_answer(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(route_timeout=0.3)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        assert texts(await streamed(http, "unrouted")) == [words(5)]
    assert [submit.attempt for submit in ring.submits] == [0, 1, 2]


async def test_a_request_that_an_idle_replica_has_forgotten(http: aiohttp.ClientSession, ring: Ring) -> None:
    async with http.post(TEXT, json=body("silence:2", stream=True)) as response:
        await response.content.readline()
        ring.scheduler.attributes |= {"running": 0, "waiting": 0, "waiting_begun": 0}
        await ring.until(lambda: len(ring.submits) == 2, timeout=15)
    assert ring.submits[1].choices[0].resumed.tolist() == [0, 1]


async def test_a_request_waits_for_a_replica(ring: Ring, start_gateway: StartGateway) -> None:
    ring.scheduler.state = State.STARTING
    gateway = await start_gateway()
    await ring.until(lambda: gateway.members.get("replica-0") is not None)
    async with aiohttp.ClientSession(gateway.http_url) as http:
        waiting = asyncio.create_task(streamed(http, "echo:3"))
        await ring.until(lambda: len(gateway.submitter.table) == 1)
        assert ring.submits == []
        ring.scheduler.state = State.READY
        await ring.beat()
        assert texts(await waiting) == [words(3)]


async def test_a_mesh_that_is_not_there(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(ready_wait=0.3)
    async with aiohttp.ClientSession(gateway.http_url) as http, http.post(TEXT, json=body("echo:3")) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        error = (await response.json())["error"]
    assert error["code"] == "not_ready"
    assert "no tokenizer is ready" in error["message"]


async def test_a_replica_that_comes_back_goes_on(http: aiohttp.ClientSession, ring: Ring) -> None:
    """The only replica is away for a while in mid-stream; the client notices nothing but the pause."""
    async with http.post(TEXT, json=body("silence:3", stream=True)) as response:
        await response.content.readline()
        gone = ring.scheduler.beat().model_copy(update={"state": State.GONE})
        replica = ring.members.pop()
        await ring.bus.publish(f"{ring._subjects.presence('scheduler')}", gone)
        await ring.until(lambda: len(ring.cancels) == 1)
        assert len(ring.submits) == 1
        replica.epoch += 1
        ring.members.append(replica)
        await ring.beat()
        await ring.until(lambda: len(ring.submits) == 2)
    assert ring.submits[1].choices[0].resumed.tolist() == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_cancelled(
    gateway: Gateway, http: aiohttp.ClientSession, ring: Ring, stream: bool
) -> None:
    async def ask() -> None:
        async with http.post(TEXT, json=body("silence:2", stream=stream)) as response:
            await response.read()

    asking = asyncio.create_task(ask())
    await ring.until(lambda: len(ring.submits) == 1)
    assert len(gateway.submitter.table) == 1
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await ring.until(lambda: len(ring.cancels) == 1)
    assert ring.cancels == [(ring.submits[0].request_id, 0)]
    assert len(gateway.submitter.table) == 0


async def test_a_client_that_leaves_while_waiting_for_a_replica(
    gateway: Gateway, http: aiohttp.ClientSession, ring: Ring
) -> None:
    ring.scheduler.state = State.STARTING
    await ring.beat()
    await ring.until(lambda: bool(gateway.not_ready()))
    asking = asyncio.create_task(streamed(http, "echo:3"))
    await ring.until(lambda: len(gateway.submitter.table) == 1)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    await ring.until(lambda: len(gateway.submitter.table) == 0)
    assert ring.submits == []


@pytest.mark.parametrize("limits", [{"max_pending_chars": 200_000}, {"client_timeout": 0.5}])
async def test_a_client_that_does_not_read_is_cancelled(
    ring: Ring, start_gateway: StartGateway, limits: dict[str, Any]
) -> None:
    gateway = await start_gateway(**limits)
    await ring.until(lambda: not gateway.not_ready())
    port = int(gateway.http_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    data = json.dumps(body("flood:400", stream=True)).encode()
    head = f"POST {TEXT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await ring.until(lambda: len(ring.cancels) == 1)
    await ring.until(lambda: len(gateway.submitter.table) == 0)
    with suppress(ConnectionError):
        while await reader.read(1 << 20):
            pass
    writer.close()


async def test_slow_readers_get_what_piled_up_at_once(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    """A thousand tokens that come in one go are far fewer chunks, and not one is missing."""
    events = await streamed(http, "echo:500")
    assert "".join(event["choices"][0]["text"] for event in events) == words(500)
    assert events[0]["choices"][0]["text"].startswith(word(0, 0))


async def test_drain_ends_what_runs_and_takes_nothing_new(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(drain_timeout=10.0)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        running = asyncio.create_task(streamed(http, "lost:1"))
        held = asyncio.create_task(http.post(TEXT, json=body("silence:1", stream=True)))
        response = await held
        await running
        gateway.stop()
        await ring.until(lambda: gateway.submitter.closed)
        async with http.get("/ready") as ready:
            assert ready.status == 503
            assert "shutting down" in (await ready.json())["missing"][""]
        async with http.post(TEXT, json=body("echo:1")) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert len(gateway.submitter.table) == 1
        await ring._say(ring.submits[-1], 0, 1, 1)
        response.close()
        await ring.until(lambda: len(gateway.submitter.table) == 0)


async def test_what_runs_on_after_the_drain_is_cancelled(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(drain_timeout=0.1)
    await ring.until(lambda: not gateway.not_ready())
    async with (
        aiohttp.ClientSession(gateway.http_url) as http,
        http.post(TEXT, json=body("silence:2", stream=True)) as response,
    ):
        await response.content.readline()
        gateway.stop()
        events = (await response.text()).split("\n\n")
    await ring.until(lambda: len(ring.cancels) == 1)
    assert json.loads(events[-2][6:])["error"]["code"] == "not_ready"


async def test_another_gateways_abort_ends_the_request(
    gateway: Gateway, ring: Ring, start_gateway: StartGateway
) -> None:
    other = await start_gateway()
    async with aiohttp.ClientSession(gateway.http_url) as http:
        asking = asyncio.create_task(streamed(http, "silence:2"))
        await ring.until(lambda: len(gateway.submitter.table) == 1 and ring.submits != [])
        assert other.submitter.abort(ring.submits[0].request_id) is False
        events = await asking
    assert events[-1]["choices"][0]["finish_reason"] == "abort"

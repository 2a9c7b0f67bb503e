"""The bus is away for longer than all attempts would take: those who wait are served when it is back."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from radixmesh.services.gateway.requests.mesh import BUS_AWAY
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.bus.connection import PENDING_BYTES, Bus
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import BusError
from radixmesh.shared.messages import Cancel, State, Submit
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import MODEL, Ring, words
from tests.support import NatsServer, until

QUICK = {"route_timeout": 0.1, "max_attempts": 2, "stall_timeout": 0.3}
"""All attempts together take less than a second."""

LONGER = 2.0
"""Seconds."""


@pytest.fixture
def server() -> Any:
    server = NatsServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: NatsServer, namespace: str) -> ServiceSettings:
    """Of a bus that the test may stop."""
    return ServiceSettings(nats_url=server.url, namespace=namespace, heartbeat_interval=0.2, log_format="text")


@pytest.fixture
async def outage(server: NatsServer, ring: Ring) -> Callable[[Gateway, bool], Any]:
    """Stops the bus, or starts it again, and waits until the gateway and the ring have noticed."""

    async def change(gateway: Gateway, away: bool) -> None:
        await asyncio.to_thread(server.stop if away else server.start)
        await until(lambda: gateway.bus.connected is not away and ring.bus.connected is not away)

    return change


async def ask(gateway: Gateway, prompt: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and body, or a stream's events under "events"."""
    wish = {"model": MODEL, "prompt": prompt, "max_tokens": 500, **fields}
    async with aiohttp.ClientSession(gateway.http_url) as http, http.post("/v1/completions", json=wish) as response:
        if response.status == 200 and fields.get("stream"):
            lines = [line[6:] for line in (await response.text()).splitlines() if line]
            return 200, {"events": lines}
        return response.status, await response.json()


async def serving(start_gateway: StartGateway, ring: Ring, **changes: Any) -> Gateway:
    gateway = await start_gateway(**{**QUICK, **changes})
    await ring.until(lambda: not gateway.not_ready())
    return gateway


async def test_requests_that_come_while_the_bus_is_away_wait_for_it(
    ring: Ring, start_gateway: StartGateway, outage: Any
) -> None:
    gateway = await serving(start_gateway, ring)
    await outage(gateway, True)
    asking = [asyncio.create_task(ask(gateway, f"echo:{number}")) for number in (2, 3, 4)]
    await until(lambda: len(gateway.submitter.table) == 3)
    await asyncio.sleep(LONGER)
    assert [request.tries for request in gateway.submitter.table] == [0, 0, 0]
    await outage(gateway, False)
    answers = await asyncio.gather(*asking)
    assert [body["choices"][0]["text"] for _, body in answers] == [words(2), words(3), words(4)]


@pytest.mark.parametrize("prompt", ["silence:3", "unrouted"])
async def test_requests_that_were_under_way_spend_nothing_on_an_outage(
    ring: Ring, start_gateway: StartGateway, outage: Any, prompt: str
) -> None:
    """A stream that has begun, and a request that nobody has taken yet."""
    gateway = await serving(start_gateway, ring, route_timeout=5.0, stall_timeout=5.0)
    asking = asyncio.create_task(ask(gateway, prompt, stream=True))
    await ring.until(lambda: len(ring.submits) == 1)
    (request,) = gateway.submitter.table
    if prompt == "silence:3":
        await until(lambda: request.output_tokens == 3)
    await outage(gateway, True)
    limits = gateway.submitter.table._limits
    object.__setattr__(limits, "route_timeout", 0.1)
    request.due = 0.0
    request.heard_at -= 100.0
    await asyncio.sleep(LONGER)
    assert (request.tries, request.ended) == (1, False)
    await outage(gateway, False)
    await ring.until(lambda: len(ring.submits) == 2)
    assert ring.submits[1].attempt == 1
    assert ring.submits[1].time_left < ring.submits[0].time_left - LONGER
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_requests_that_come_while_the_bus_hangs_wait_for_it(
    ring: Ring, start_gateway: StartGateway, server: NatsServer
) -> None:
    """It takes what is sent and gives nothing back, for longer than all attempts would take."""
    gateway = await serving(start_gateway, ring)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await until(lambda: not gateway.bus.connected)
        asking = asyncio.create_task(ask(gateway, "echo:3"))
        await until(lambda: len(gateway.submitter.table) == 1)
        await asyncio.sleep(LONGER)
        assert [request.tries for request in gateway.submitter.table] == [0]
    finally:
        os.kill(server.pid, signal.SIGCONT)
    status, body = await asking
    assert (status, body["choices"][0]["text"]) == (200, words(3))


async def test_outage_after_outage(ring: Ring, start_gateway: StartGateway, outage: Any) -> None:
    """More of them than there are attempts."""
    gateway = await serving(start_gateway, ring)
    asking = None
    for _ in range(4):
        await outage(gateway, True)
        asking = asking or asyncio.create_task(ask(gateway, "echo:3"))
        ring.scheduler.state = State.STARTING
        await asyncio.sleep(0.3)
        await outage(gateway, False)
    assert not asking.done()
    ring.scheduler.state = State.READY
    status, body = await asking
    assert (status, body["choices"][0]["text"]) == (200, words(3))


@pytest.mark.parametrize(
    ("changes", "fields", "status", "code"),
    [
        ({}, {"timeout": 0.5}, 504, "deadline_exceeded"),
        ({"request_timeout": 0.5}, {}, 504, "deadline_exceeded"),
        ({"ready_wait": 0.5}, {}, 503, "not_ready"),
        ({"ready_wait": 0.0}, {"stream": True}, 503, "not_ready"),
        ({"ready_wait": 0.5}, {"timeout": 20}, 503, "not_ready"),
    ],
)
async def test_who_cannot_wait_for_the_bus_is_told_in_time(
    ring: Ring,
    start_gateway: StartGateway,
    outage: Any,
    changes: dict[str, float],
    fields: dict[str, Any],
    status: int,
    code: str,
) -> None:
    gateway = await serving(start_gateway, ring, **changes)
    await outage(gateway, True)
    began = time.monotonic()
    answered, body = await ask(gateway, "echo:3", **fields)
    assert (answered, body["error"]["code"]) == (status, code)
    assert time.monotonic() - began < 5.0
    if status == 503:
        assert BUS_AWAY in body["error"]["message"]
    assert ring.submits == []


async def test_a_deadline_in_an_outage_ends_a_stream(ring: Ring, start_gateway: StartGateway, outage: Any) -> None:
    gateway = await serving(start_gateway, ring, stall_timeout=60.0)
    asking = asyncio.create_task(ask(gateway, "silence:3", stream=True, timeout=1.5))
    await until(lambda: any(request.output_tokens == 3 for request in gateway.submitter.table))
    await outage(gateway, True)
    async with asyncio.timeout(10):
        _, body = await asking
    assert json.loads(body["events"][-1])["error"]["code"] == "deadline_exceeded"


async def test_a_submit_that_the_bus_does_not_take_waits(
    ring: Ring, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage begins between the table's look and the sending, and too much is kept already."""
    gateway = await serving(start_gateway, ring)
    refused = 0

    async def publish(subject: str, message: Submit | Cancel, headers: Any = None) -> None:
        nonlocal refused
        if isinstance(message, Submit) and refused < 4:
            refused += 1
            raise BusError("cannot publish Submit: outbound buffer limit exceeded")
        await Bus.publish(gateway.bus, subject, message, headers)

    monkeypatch.setattr(gateway.bus, "publish", publish)
    status, body = await ask(gateway, "echo:3")
    assert (status, body["choices"][0]["text"], refused) == (200, words(3), 4)


async def test_what_is_kept_for_the_bus_is_bounded(settings: ServiceSettings, server: NatsServer) -> None:
    bus = await Bus.connect(settings, "talker")
    piece = Submit(request_id="a", gateway_id="g", model="m", text="x" * (1 << 19), time_left=1.0)
    server.stop()
    await until(lambda: not bus.connected)

    async def publish_too_much() -> None:
        for _ in range(2 * PENDING_BYTES // len(piece.text or "")):
            await bus.publish("nowhere", piece)

    with pytest.raises(BusError, match="cannot publish Submit"):
        await publish_too_much()
    await bus.close()  # what is kept is lost, and no reason to fail


@pytest.mark.parametrize("service", ["tokenizer", "detokenizer", "scheduler"])
async def test_waiting_for_a_service_costs_no_attempt(ring: Ring, start_gateway: StartGateway, service: str) -> None:
    (absent,) = [member for member in ring.members if member.service == service]
    absent.state = State.STARTING
    gateway = await start_gateway(**QUICK)
    await ring.until(lambda: all(gateway.members.get(member.instance) for member in ring.members))
    asking = asyncio.create_task(ask(gateway, "echo:3"))
    await until(lambda: len(gateway.submitter.table) == 1)
    await asyncio.sleep(LONGER)
    assert [request.tries for request in gateway.submitter.table] == [0]
    absent.state = State.READY
    status, body = await asking
    assert (status, body["choices"][0]["text"]) == (200, words(3))

"""A real gateway on free ports, and a scripted ring around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import openai
import pytest
import uvloop

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.config import ServiceSettings
from tests.gateway.ring import Ring

StartGateway = Callable[..., Awaitable[Gateway]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that services run on: what a transport tells of its client, and when, is the loop's own affair."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def start_gateway(settings: ServiceSettings) -> AsyncIterator[StartGateway]:
    """Starts gateways with settings of the test's choice; ends them after it."""
    running: list[tuple[Gateway, asyncio.Task[None]]] = []

    async def start(**changes: Any) -> Gateway:
        base = settings.model_dump(include={"nats_url", "namespace", "heartbeat_interval", "log_format"})
        options = {"http_port": 0, "grpc_port": -1, "drain_timeout": 0.0, "instance": f"gw-{len(running)}", **changes}
        gateway = Gateway(GatewaySettings(**{**base, **options}))
        task = asyncio.create_task(gateway.run())
        running.append((gateway, task))
        async with asyncio.timeout(10):
            while not gateway.http_url or (options["grpc_port"] >= 0 and not gateway.grpc_address):
                if task.done():
                    await task
                await asyncio.sleep(0.01)
        return gateway

    yield start
    for gateway, task in running:
        gateway.stop()
        await task


@pytest.fixture
async def ring(settings: ServiceSettings) -> AsyncIterator[Ring]:
    """Started."""
    ring = Ring(settings)
    await ring.start()
    yield ring
    await ring.stop()


@pytest.fixture
async def gateway(ring: Ring, start_gateway: StartGateway) -> Gateway:
    """With the ring's members known."""
    gateway = await start_gateway()
    await ring.until(lambda: not gateway.not_ready())
    return gateway


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client of `gateway`."""
    async with aiohttp.ClientSession(gateway.http_url) as session:
        yield session


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, which does not retry."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.http_url}/v1", api_key="none", max_retries=0) as client:
        yield client

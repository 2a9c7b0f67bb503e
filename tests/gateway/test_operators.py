"""What operators and probes see: health, readiness, metrics, the mesh; and the bus restarting under a request."""

import asyncio
import json
from importlib.metadata import version

import aiohttp
import pytest

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.service import Gateway
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import RadixMeshError
from radixmesh.shared.messages import CacheFlushed, State
from tests.gateway.conftest import StartGateway
from tests.gateway.ring import MODEL, Ring
from tests.support import NatsServer


async def test_ready_says_what_is_missing(ring: Ring, start_gateway: StartGateway) -> None:
    for member in ring.members:
        member.state = State.STARTING
    ring.scheduler.detail = "loading 40%"
    gateway = await start_gateway()
    await ring.until(lambda: len(list(gateway.members)) >= 4)
    async with aiohttp.ClientSession(gateway.http_url) as http:
        async with http.get("/health") as response:
            assert response.status == 200
        async with http.get("/ready") as response:
            assert response.status == 503
            missing = (await response.json())["missing"][MODEL]
        assert "no tokenizer is ready" in missing
        assert "no scheduler is ready (loading 40%)" in missing
        for member in ring.members:
            member.state = State.READY
        await ring.beat()
        await ring.until(lambda: not gateway.not_ready())
        async with http.get("/ready") as response:
            assert (response.status, await response.json()) == (200, {"status": "ready", "models": [MODEL]})


async def test_mesh_lists_members(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    for path in ("/mesh", "/v1/mesh"):
        async with http.get(path) as response:
            members = {member["instance"]: member for member in (await response.json())["data"]}
        assert {"tok", "detok", "replica-0"} <= set(members)
        assert members["replica-0"]["state"] == "ready"
        assert members["replica-0"]["attributes"]["free_pages"] == 9


async def test_the_gateway_tells_where_it_listens(gateway: Gateway, http: aiohttp.ClientSession, ring: Ring) -> None:
    await gateway.beat()
    await ring.until(lambda: gateway.members.get(gateway.instance) is not None)
    presence = gateway.presence_attributes()
    assert presence["http_url"] == gateway.http_url
    async with http.get("/") as response:
        assert "POST /v1/chat/completions" in (await response.json())["endpoints"]


async def test_version_and_ping(http: aiohttp.ClientSession) -> None:
    async with http.get("/version") as response:
        assert (await response.json())["version"] == version("radixmesh")
    async with http.get("/ping") as response:
        assert response.status == 200


@pytest.mark.parametrize("given", ["mine-1", "a b;c", "x" * 256])
async def test_a_clients_own_request_id_comes_back(http: aiohttp.ClientSession, given: str) -> None:
    headers = {"X-Request-Id": given}
    for path, body in (
        ("/v1/completions", {"prompt": "echo:1"}),
        ("/v1/completions", {"prompt": "echo:1", "stream": True}),
        ("/v1/completions", {"prompt": ""}),
        ("/nowhere", {}),
    ):
        async with http.post(path, json=body, headers=headers) as response:
            assert response.headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 257, "é", "a\tb"])
async def test_another_is_made_where_it_is_none(http: aiohttp.ClientSession, given: str) -> None:
    async with http.post("/v1/completions", json={"prompt": "echo:1"}, headers={"X-Request-Id": given}) as response:
        assert response.headers["X-Request-Id"].startswith("cmpl-")


async def test_flush_waits_for_running_requests(http: aiohttp.ClientSession, ring: Ring) -> None:
    in_use = [3, 3, 0, 0, 2]
    """Pages, at each flush."""

    async def flushed(envelope: Envelope) -> None:
        await ring.bus.publish(envelope.reply, CacheFlushed(pages_freed=1, pages_in_use=in_use.pop(0)))

    control = ring._subjects.replica_control(ring.scheduler.instance)
    await ring.bus.subscribe(control, lambda envelope: ring._spawn(flushed(envelope)))
    async with http.get("/flush_cache?timeout=10") as response:
        assert response.status == 200
        assert (await response.json())["replicas"] == [{"replica": "replica-0", "pages_freed": 1, "pages_in_use": 0}]
    async with http.post("/reset_prefix_cache") as response:
        assert response.status == 200
    async with http.post("/flush_cache?timeout=0") as response:
        assert response.status == 400
        assert "running requests" in (await response.json())["error"]["message"]
    for wrong in ("-1", "soon", "nan", "1e9"):
        async with http.get(f"/flush_cache?timeout={wrong}") as response:
            assert (response.status, (await response.json())["param"]) == (400, "timeout")


async def test_metrics(ring: Ring, start_gateway: StartGateway) -> None:
    gateway = await start_gateway(strict_model_names=True)
    await ring.until(lambda: not gateway.not_ready())
    async with aiohttp.ClientSession(gateway.http_url) as http:
        async with http.post("/v1/completions", json={"model": MODEL, "prompt": "lost:1"}) as response:
            assert response.status == 200
        async with http.post("/v1/completions", json={"model": "nobody", "prompt": "x"}) as response:
            assert response.status == 404
        async with http.get("/metrics") as response:
            assert response.content_type == "text/plain"
            text = await response.text()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['radixmesh_gateway_requests_total{endpoint="/v1/completions",status="200"}'] == "1.0"
    assert lines['radixmesh_gateway_requests_total{endpoint="/v1/completions",status="404"}'] == "1.0"
    assert lines['radixmesh_gateway_redispatches_total{reason="replica_lost"}'] == "1.0"
    for name in ("time_to_first_token_seconds", "request_seconds"):
        assert lines[f'radixmesh_gateway_{name}_count{{model="{MODEL}"}}'] == "1.0"
    assert lines[f'radixmesh_gateway_inter_token_seconds_count{{model="{MODEL}"}}'] == "11.0"
    for name, value in (("prompt", 7.0), ("output", 12.0), ("cached", 4.0)):
        assert float(lines[f'radixmesh_gateway_{name}_tokens_total{{model="{MODEL}"}}']) == value
    assert lines["radixmesh_gateway_inflight"] == "0.0"
    assert lines['radixmesh_members{service="scheduler",state="ready"}'] == "1.0"
    assert lines[f'radixmesh_replica_free_pages{{model="{MODEL}",replica="replica-0"}}'] == "9.0"
    assert "nobody" not in text


async def test_nats_restarts_under_a_request(namespace: str) -> None:
    """What was on the bus may be lost: the request goes round again, and the client's stream goes on."""
    server = NatsServer()
    server.start()
    settings = ServiceSettings(nats_url=server.url, namespace=namespace, heartbeat_interval=0.2)
    ring = Ring(settings)
    await ring.start()
    options = {"nats_url": server.url, "namespace": namespace, "heartbeat_interval": 0.2, "drain_timeout": 0.0}
    gateway = Gateway(GatewaySettings(http_port=0, grpc_port=-1, **options))
    running = asyncio.create_task(gateway.run())
    try:
        await ring.until(lambda: bool(gateway.http_url) and not gateway.not_ready())
        async with aiohttp.ClientSession(gateway.http_url) as http:
            request = {"model": MODEL, "prompt": "silence:2", "stream": True}
            async with http.post("/v1/completions", json=request) as response:
                first = json.loads((await response.content.readline())[6:])
                server.stop()
                await ring.until(lambda: bool(gateway.not_ready()))
                server.start()
                await ring.until(lambda: len(ring.submits) > 1, timeout=20)
            assert first["choices"][0]["text"]
            assert ring.submits[1].choices[0].resumed.tolist() == [0, 1]
            async with http.post("/v1/completions", json={"model": MODEL, "prompt": "echo:2"}) as response:
                assert response.status == 200
    finally:
        gateway.stop()
        await running
        await ring.stop()
        server.stop()


@pytest.mark.parametrize("host", [f"{'a' * 64}.example", "a..example", "é" * 64, "\ud800"])
@pytest.mark.parametrize("setting", ["http_host", "grpc_host"])
async def test_a_host_that_is_no_name_is_told_in_one_line(settings: ServiceSettings, setting: str, host: str) -> None:
    base = {"nats_url": settings.nats_url, "namespace": settings.namespace, "http_port": 0, "grpc_port": 0}
    with pytest.raises(RadixMeshError, match=r"^cannot listen on [^\n]*$"):
        await Gateway(GatewaySettings(**{**base, setting: host})).run()

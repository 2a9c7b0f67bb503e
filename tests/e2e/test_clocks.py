"""A mesh whose wall clocks jump, or disagree: nobody is ignored for it, and no request ends."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import openai
import pytest

from radixmesh.services.gateway.faces.grpc import radixmesh_pb2 as pb
from radixmesh.services.gateway.faces.grpc.radixmesh_pb2_grpc import RadixMeshStub
from radixmesh.services.model_worker.devices.cpu.native import native
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.serving import ServeProcess, wait_for
from tests.support import NatsServer, free_port
from tests.wall_clock import WallClock

HOURS = 3600
SECONDS = 30.0
"""In which a mesh serves again whatever the clock says; restarts on a busy machine take some of it."""

HEARTBEAT = 10.0
"""Seconds. Beats that are missing show a death only later than `SECONDS`."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clocks") / "tiny-llama"
    make_checkpoint(path, "llama", num_hidden_layers=1, max_position_embeddings=8192)
    make_tokenizer(path)
    native()  # if the kernels have to be compiled first, not while a mesh is waited for
    return path


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WallClock:
    return WallClock(tmp_path_factory.mktemp("wall-clock"))


@pytest.fixture(scope="module")
def mesh(checkpoint: Path, clock: WallClock) -> Iterator[ServeProcess]:
    flags = ("--model", str(checkpoint), "--dtype", "float32")
    with ServeProcess(*flags, environ={**clock.environ, "RADIXMESH_HEARTBEAT_INTERVAL": str(HEARTBEAT)}) as mesh:
        yield mesh


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


def complete(url: str, count: int = 1, timeout: float = 60.0) -> str | None:
    """The finish reason of an answer of `count` tokens. Raises openai.OpenAIError."""
    with client(url) as api:
        wish = {"ignore_eos": True, "timeout": timeout}
        answer = api.completions.create(model="tiny-llama", prompt="once", max_tokens=count, extra_body=wish)
    return answer.choices[0].finish_reason


def serves(url: str) -> bool:
    try:
        return complete(url, timeout=10) == "length"
    except openai.OpenAIError:
        return False


def stream(url: str, count: int, begun: threading.Event) -> list[str]:
    """Finish reasons of a stream of `count` tokens."""
    with client(url) as api:
        events = api.completions.create(
            model="tiny-llama",
            prompt="once",
            max_tokens=count,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        ends = []
        for event in events:
            begun.set()
            ends += [choice.finish_reason for choice in event.choices if choice.finish_reason]
            if event.usage is not None:
                assert event.usage.completion_tokens == count
    return ends


@pytest.mark.parametrize("jumps", [[2 * HOURS], [-2 * HOURS], [2 * HOURS, -24 * HOURS, 0]])
async def test_a_jump_of_the_clock_ends_no_stream(mesh: ServeProcess, clock: WallClock, jumps: list[int]) -> None:
    clock.shift(0)
    mesh.wait_ready()
    before, begun = mesh.pids(), threading.Event()
    streaming = asyncio.create_task(asyncio.to_thread(stream, mesh.url, 6000, begun))
    assert await asyncio.to_thread(begun.wait, 60)
    for seconds in jumps:
        assert not streaming.done()
        clock.shift(seconds)
        await asyncio.sleep(1.2)  # for the services' clocks to look at deadlines once
    assert await streaming == ["length"]
    assert mesh.pids() == before
    assert serves(mesh.url)
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:  # gRPC has a deadline of its own for each call
        call = RadixMeshStub(channel).Generate(
            pb.GenerateRequest(model=mesh.model, text="once", params=pb.SamplingParams(max_tokens=1)), timeout=20
        )
        assert [answer async for answer in call]


@pytest.mark.parametrize("stem", ["r0", "worker-r0-0", "tokenizer-0", "detokenizer-0", "gateway-0"])
def test_a_service_that_starts_again_behind_its_own_past_is_heeded(
    mesh: ServeProcess, clock: WallClock, stem: str
) -> None:
    clock.shift(0)
    mesh.wait_ready()
    wait_for(lambda: serves(mesh.url), SECONDS, "the mesh to serve")
    clock.shift(-2 * HOURS)
    mesh.wait_restarted(stem, mesh.kill(stem))
    wait_for(lambda: serves(mesh.url), SECONDS, f"the mesh to serve with a new {stem}")


@pytest.mark.parametrize("stem", ["r0", "detokenizer-0"])
def test_a_clock_that_goes_to_and_fro(mesh: ServeProcess, clock: WallClock, stem: str) -> None:
    """One step after another, and deaths of both kinds: a service that ends in order has told its epoch itself."""
    kill, end = signal.SIGKILL, signal.SIGTERM
    for seconds, signum in ((HOURS, kill), (-60, end), (-HOURS, kill), (0, end)):
        clock.shift(seconds)
        mesh.wait_restarted(stem, mesh.kill(stem, signum))
        wait_for(lambda: serves(mesh.url), SECONDS, f"the mesh to serve with a new {stem}")


SERVICES = ("gateway", "tokenizer", "detokenizer", "scheduler", "model_worker")


def run(service: str, bus: str, environ: dict[str, str], *flags: str) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "radixmesh.cli", "run", service, "--instance", f"the-{service}", *flags]
    around = {**os.environ, "RADIXMESH_NATS_URL": bus, "RADIXMESH_LOG_LEVEL": "warning", **environ}
    return subprocess.Popen(words, env=around)


@pytest.mark.parametrize("apart", [30, -30])
def test_hosts_that_are_half_a_minute_apart_serve_short_requests(checkpoint: Path, tmp_path: Path, apart: int) -> None:
    """By hand, as on several hosts: the gateway's clock is right and everyone else's is not."""
    server, port = NatsServer(), free_port()
    server.start()
    clock = WallClock(tmp_path)
    clock.shift(apart)
    model = ("--model", str(checkpoint))
    own = {
        "gateway": ("--http-port", str(port), "--grpc-port", "-1"),
        "tokenizer": model,
        "detokenizer": model,
        "scheduler": (),
        "model_worker": (*model, "--dtype", "float32", "--threads", "1", "--num-pages", "512"),
    }
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as ends:
        ends.callback(server.stop)
        processes = [
            run(service, server.url, {} if service == "gateway" else clock.environ, *own[service])
            for service in SERVICES
        ]
        for process in processes:
            ends.callback(process.wait, 20)
            ends.callback(process.send_signal, signal.SIGTERM)
        wait_for(lambda: serves(url), 120, "the mesh to serve", alive=processes[0])
        for timeout in (20, 5):
            assert complete(url, 3, timeout) == "length"
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as late:
            complete(url, 8000, timeout=0.3)
        assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
        assert time.monotonic() - began < 10
        # Nobody tells of their deaths here, and those that come after them are behind.
        clock.shift(apart - 2 * HOURS)
        for service in ("scheduler", "detokenizer"):
            dead = processes[SERVICES.index(service)]
            dead.kill()
            dead.wait()
            again = run(service, server.url, clock.environ, *own[service])
            ends.callback(again.wait, 20)
            ends.callback(again.send_signal, signal.SIGTERM)
            wait_for(lambda: serves(url), SECONDS, f"the mesh to serve with a new {service}", alive=again)

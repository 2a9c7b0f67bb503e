"""What a client sees when parts of the mesh die under it: one unbroken answer."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from radixmesh.shared.presence.view import MISSED_BEATS
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.serving import ServeProcess, wait_for
from tests.support import NatsServer

HEARTBEAT = 0.5
"""Seconds. The dead are missed sooner than by default."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "tiny-llama"
    make_checkpoint(path, "llama", max_position_embeddings=4096)
    make_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def nats_server() -> Iterator[NatsServer]:
    server = NatsServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mesh(checkpoint: Path, nats_server: NatsServer) -> Iterator[ServeProcess]:
    flags = ("--model", str(checkpoint), "--dtype", "float32", "--nats-url", nats_server.url, "--replicas", "2")
    with ServeProcess(*flags, environ={"RADIXMESH_HEARTBEAT_INTERVAL": str(HEARTBEAT)}) as mesh:
        yield mesh


def client(mesh: ServeProcess) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0, timeout=120)


class Stream:
    """A completion that is read in the background."""

    def __init__(self, api: openai.AsyncOpenAI, number: int, max_tokens: int = 600) -> None:
        self.text = ""
        self.finish: str | None = None
        self.usage: Any = None
        self._api, self._number, self._max_tokens = api, number, max_tokens
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        stream = await self._api.completions.create(
            model="tiny-llama",
            prompt=f"{self._number} times upon a time",
            max_tokens=self._max_tokens,
            temperature=0,  # sampled text may change by a rounding error with the company in a batch; greedy does not
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            for choice in chunk.choices:
                self.text += choice.text
                self.finish = choice.finish_reason or self.finish
            self.usage = chunk.usage or self.usage

    async def begun(self) -> None:
        async with asyncio.timeout(60):
            while not self.text and not self.task.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def undisturbed(mesh: ServeProcess, count: int) -> list[str]:
    async with client(mesh) as api:
        streams = [Stream(api, number) for number in range(count)]
        await asyncio.gather(*(stream.task for stream in streams))
    return [stream.text for stream in streams]


async def disturbed(mesh: ServeProcess, count: int, disturb: Any) -> list[Stream]:
    """`count` streams; once all have begun, `disturb` happens to the mesh."""
    async with client(mesh) as api:
        streams = [Stream(api, number) for number in range(count)]
        await asyncio.gather(*(stream.begun() for stream in streams))
        assert not all(stream.task.done() for stream in streams)
        await asyncio.to_thread(disturb)
        await asyncio.gather(*(stream.task for stream in streams))
    return streams


@pytest.fixture(scope="module")
def expected(mesh: ServeProcess) -> list[str]:
    """What six clients get from a mesh that nothing happens to."""
    return asyncio.run(undisturbed(mesh, 6))


def instance(mesh: ServeProcess, stem: str) -> str:
    """The full name of the process whose name begins with `stem`: on a shared bus names carry a suffix."""
    return next(name for name in mesh.pids() if name.startswith(stem))


@pytest.mark.parametrize("stem", ["r0", "worker-r0", "detokenizer-0", "tokenizer-0"])
async def test_a_dead_process_breaks_no_stream(mesh: ServeProcess, expected: list[str], stem: str) -> None:
    victim = instance(mesh, stem)
    pid = mesh.pids()[victim]
    streams = await disturbed(mesh, 6, lambda: mesh.kill(victim))
    assert [stream.text for stream in streams] == expected
    assert [stream.finish for stream in streams] == ["length"] * 6
    assert [stream.usage.completion_tokens for stream in streams] == [600] * 6
    mesh.wait_restarted(victim, pid)
    wait_for(mesh.ready, 60, "the mesh to be whole again")


async def test_a_restart_of_nats_under_load_restarts_nobody(
    mesh: ServeProcess, expected: list[str], nats_server: NatsServer
) -> None:
    wait_for(mesh.ready, 60, "the mesh to be ready")
    before = mesh.pids()

    def restart() -> None:
        nats_server.stop()
        nats_server.start()

    streams = await disturbed(mesh, 6, restart)
    assert [stream.text for stream in streams] == expected
    wait_for(mesh.ready, 60, "the mesh to serve again")
    assert mesh.pids() == before
    assert {name.split("-")[0] for name in before} >= {"gateway", "tokenizer", "detokenizer", "r0", "worker"}


async def test_a_bus_that_is_away_for_longer_than_all_attempts_take(checkpoint: Path, expected: list[str]) -> None:
    """Streams that run, and requests that come meanwhile: all are served when it is back."""
    server = NatsServer()
    server.start()
    impatient = {"RADIXMESH_ROUTE_TIMEOUT": "1", "RADIXMESH_STALL_TIMEOUT": "1", "RADIXMESH_MAX_ATTEMPTS": "3"}
    flags = ("--model", str(checkpoint), "--dtype", "float32", "--nats-url", server.url)
    try:
        with ServeProcess(*flags, environ={"RADIXMESH_HEARTBEAT_INTERVAL": str(HEARTBEAT), **impatient}) as mesh:
            pids = mesh.pids()
            async with client(mesh) as api:
                streams = [Stream(api, number) for number in range(3)]
                await asyncio.gather(*(stream.begun() for stream in streams))
                await asyncio.to_thread(server.stop)
                for number in range(3, 6):
                    streams.append(Stream(api, number))
                    await asyncio.sleep(2.0)
                assert not any(stream.task.done() for stream in streams)
                await asyncio.to_thread(server.start)
                await asyncio.gather(*(stream.task for stream in streams))
            assert [stream.text for stream in streams] == expected
            assert mesh.pids() == pids
    finally:
        server.stop()


@pytest.mark.parametrize("stem", ["r0", "detokenizer-0", "nats"])
async def test_what_was_asleep_is_fenced_or_taken_back(
    mesh: ServeProcess, expected: list[str], nats_server: NatsServer, stem: str
) -> None:
    """Stopped long enough to be taken for dead, then woken: running streams and new requests are served."""
    wait_for(mesh.ready, 60, "the mesh to be ready")

    def sleep_and_wake() -> None:
        pid = nats_server.pid if stem == "nats" else mesh.pids()[instance(mesh, stem)]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5 * MISSED_BEATS * HEARTBEAT)
        os.kill(pid, signal.SIGCONT)

    streams = await disturbed(mesh, 6, sleep_and_wake)
    assert [stream.text for stream in streams] == expected
    wait_for(mesh.ready, 60, "the mesh to serve again")
    assert await undisturbed(mesh, 2) == expected[:2]

"""Requests that need something prepared, through real services: they wait, and nobody waits for them."""

import asyncio
from pathlib import Path

import pytest

from radixmesh.services.model_worker import service
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.e2e.local_mesh import LocalMesh, local_mesh
from tests.model_worker.preparers import SleepingPreparer, loading
from tests.support import until

PROMPT = [7, 8, 9]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preparation") / "tiny"
    make_checkpoint(path, "llama", num_hidden_layers=1)
    make_tokenizer(path)
    native()  # if the kernels have to be compiled first, not while the mesh is waited for
    return path


@pytest.fixture
def preparer(monkeypatch: pytest.MonkeyPatch) -> SleepingPreparer:
    """Of all workers."""
    preparer = SleepingPreparer()
    monkeypatch.setattr(service, "load", loading(preparer))
    return preparer


def worker(mesh: LocalMesh) -> ModelWorker:
    return next(actor for actor in mesh._tasks if isinstance(actor, ModelWorker))


async def test_steps_of_others_go_on_while_a_request_is_prepared(
    settings: ServiceSettings, checkpoint: Path, preparer: SleepingPreparer
) -> None:
    async with local_mesh(settings, checkpoint) as mesh:
        (scheduler,) = await mesh.start("r0")
        running = await mesh.submit(PROMPT, max_tokens=400)
        needy = [await mesh.submit(PROMPT, lora="slow") for _ in range(2)]
        await until(lambda: preparer.begun)
        for number in range(3):
            await mesh.ask([*PROMPT, number])
        async with asyncio.timeout(60):
            await running.ended.wait()
        assert not any(answer.ended.is_set() for answer in needy)
        assert scheduler.core is not None
        assert (scheduler.core.replica.queue.preparing, scheduler.core.replica.slots.running) == (2, 0)
        preparer.wake.set()
        async with asyncio.timeout(60):
            for answer in needy:
                await answer.ended.wait()
        assert preparer.begun == ["slow"]
        assert not any(answer.failed for answer in mesh.answers.values())
        assert "step-loop" not in preparer.threads


@pytest.mark.parametrize(
    ("lora", "code", "words"),
    [
        ("bad", ErrorCode.INVALID_REQUEST, "there is no adapter 'bad'"),
        ("broken", ErrorCode.INTERNAL, "the model worker failed to prepare the lora of this request"),
    ],
)
async def test_a_failure_reaches_the_gateway_and_nobody_else(
    settings: ServiceSettings, checkpoint: Path, preparer: SleepingPreparer, lora: str, code: ErrorCode, words: str
) -> None:
    async with local_mesh(settings, checkpoint) as mesh:
        await mesh.start("r0")
        refused, served = await mesh.submit(PROMPT, lora=lora), await mesh.submit(PROMPT, lora="good")
        async with asyncio.timeout(60):
            await refused.ended.wait()
            await served.ended.wait()
        assert served.failed is None
        assert refused.failed is not None
        assert (refused.failed.code, refused.failed.message) == (code, words)


async def test_what_was_being_prepared_when_its_worker_died_is_prepared_by_the_next(
    settings: ServiceSettings, checkpoint: Path, preparer: SleepingPreparer
) -> None:
    async with local_mesh(settings, checkpoint) as mesh:
        (scheduler,) = await mesh.start("r0")
        lost = await mesh.submit(PROMPT, lora="slow")
        await until(lambda: preparer.begun)
        await mesh.stop(worker(mesh))
        async with asyncio.timeout(60):
            await lost.ended.wait()
        assert lost.failed is not None
        assert lost.failed.code is ErrorCode.REPLICA_LOST
        preparer.wake.set()
        mesh.work("r0")
        await mesh.follows(mesh.tokenizer, scheduler)
        again = await mesh.submit(PROMPT, lora="slow")
        async with asyncio.timeout(60):
            await again.ended.wait()
        assert again.failed is None
        assert preparer.begun == ["slow", "slow"]

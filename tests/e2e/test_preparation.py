"""Requests that need something prepared, through real services: they wait, and nobody waits for them."""

import asyncio
from pathlib import Path

import pytest

from radixmesh.services.model_worker import service
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Finish, Prepared, TokenBatch
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.e2e.local_mesh import LocalMesh, local_mesh
from tests.model_worker.preparers import SleepingPreparer, loading
from tests.model_worker.ranks import run_ranks
from tests.scheduler.harness import admit_message
from tests.scheduler.mesh import Mesh, mesh
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
        replica = scheduler.core.replica
        await until(lambda: replica.slots.running == 0)  # the report may come behind the text
        assert replica.queue.preparing == 2
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


async def test_a_request_waits_until_every_rank_has_what_it_needs(
    settings: ServiceSettings, checkpoint: Path, tmp_path: Path
) -> None:
    async with mesh(settings) as held:
        scheduler, answers = held.scheduler(), []
        report = held.subjects.replica_report(scheduler.instance)
        await held.bus.subscribe(report, lambda envelope: answers.append(envelope.unpack()))
        words = (settings.nats_url, settings.namespace, str(checkpoint))
        ranks = asyncio.create_task(asyncio.to_thread(run_ranks, "tests.e2e.preparing_rank", 2, tmp_path, *words))
        inbox = held.subjects.replica_inbox(scheduler.instance)

        def prepared() -> list[int]:
            return [answer.rank for answer in answers if isinstance(answer, Prepared)]

        try:
            await until(lambda: scheduler.core is not None, 90)
            await held.bus.publish(inbox, admit_message("needy", PROMPT, lora="slow", epoch=scheduler.epoch))
            await until(lambda: prepared() == [0])
            await held.bus.publish(inbox, admit_message("other", [*PROMPT, 5], epoch=scheduler.epoch))
            await until(lambda: "other" in finished(held))
            assert prepared() == [0]
            assert finished(held) == ["other"]
            await held.bus.client.publish(f"{settings.namespace}.wake")
            await until(lambda: "needy" in finished(held))
            assert prepared() == [0, 1]
        finally:
            await held.bus.client.publish(f"{settings.namespace}.end")
            outs = await ranks
        assert [out["begun"] for out in outs] == [["slow"], ["slow"]]
        assert not held.failed


def finished(held: Mesh) -> list[str]:
    """Requests whose last tokens have come, in that order."""
    return [
        name
        for batch in held.other
        if isinstance(batch, TokenBatch)
        for name, finish in zip(batch.request_ids, batch.finish.tolist(), strict=True)
        if finish != Finish.RUNNING
    ]

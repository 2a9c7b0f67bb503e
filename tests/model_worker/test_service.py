"""A model worker on the bus: claims, plans, reports, tokens."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from radixmesh.services.model_worker import service
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.group.claim import ClaimState
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode, RadixMeshError
from radixmesh.shared.messages import (
    Admission,
    Claim,
    Claimed,
    Finish,
    KvGroup,
    Message,
    Prepare,
    Prepared,
    Presence,
    Refused,
    SamplingParams,
    Span,
    State,
    StepPlan,
    StepReport,
    TokenBatch,
    Work,
)
from radixmesh.shared.presence.view import PresenceView
from tests.checkpoints import make_checkpoint
from tests.model_worker.plans import columns
from tests.model_worker.preparers import SleepingPreparer, loading
from tests.support import until


def scheduler(epoch: int, state: State = State.READY, name: str = "r0") -> Presence:
    return Presence(service="scheduler", instance=name, epoch=epoch, state=state, interval=60)


def claim(epoch: int, name: str = "r0") -> Claim:
    return Claim(scheduler_id=name, replica_id=name, epoch=epoch)


M = TypeVar("M", bound=Message)


def reason(refused: Refused | None) -> str:
    assert refused is not None
    return refused.reason


def test_the_first_claim_holds_until_its_scheduler_is_gone() -> None:
    state, members = ClaimState(), PresenceView()
    members.update(scheduler(10))
    assert state.consider(claim(10), members) is None
    assert "works for r0" in reason(state.consider(claim(11, "r1"), members))
    assert "not newer" in reason(state.consider(claim(9), members))
    assert state.consider(claim(12), members) is None  # its own scheduler may always claim anew
    assert not state.release(scheduler(13))  # a later life of the scheduler, which this claim knows nothing of
    assert state.release(scheduler(12))
    assert state.consider(claim(20, "r1"), members) is None


def test_a_pinned_group_works_for_its_replica_only() -> None:
    state = ClaimState("r7")
    assert "pinned" in reason(state.consider(claim(1, "r0"), PresenceView()))
    assert state.consider(claim(1, "r7"), PresenceView()) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worker")
    make_checkpoint(path, "llama")
    return path


class Mesh:
    """The worker, and a test that plays scheduler and detokenizer."""

    def __init__(self, worker: ModelWorker, bus: Bus) -> None:
        self.worker = worker
        self.bus = bus
        self.seen: list[Message] = []

    async def listen(self) -> None:
        for subject in (self.worker.subjects.replica_report("r0"), self.worker.subjects.detokenizer_inbox("d")):
            await self.bus.subscribe(subject, lambda envelope: self.seen.append(envelope.unpack()))
        await self.bus.flush()

    @property
    def engine(self) -> Engine:
        assert self.worker._rank is not None
        return self.worker._rank.engine

    async def ask(self, message: Message) -> Message:
        return await self.bus.request(self.worker.subjects.group_claim(self.worker.group_id), message, timeout=10)

    async def prepare(self, epoch: int, number: int, lora: str, replaces: int = -1) -> None:
        fields = {"epoch": epoch, "number": number, "replica_id": "r0", "kind": "lora", "replaces": replaces}
        await self.bus.publish(
            self.worker.subjects.group_plan(self.worker.group_id), Prepare(work=Work(lora=lora), **fields)
        )

    async def plan(self, **fields: object) -> None:
        await self.bus.publish(self.worker.subjects.group_plan(self.worker.group_id), StepPlan(**fields))

    def of(self, kind: type[M]) -> list[M]:
        return [message for message in self.seen if isinstance(message, kind)]


def worker_settings(settings: ServiceSettings, checkpoint: Path, num_pages: int = 32) -> ModelWorkerSettings:
    return ModelWorkerSettings(
        nats_url=settings.nats_url,
        namespace=settings.namespace,
        heartbeat_interval=0.2,
        model=str(checkpoint),
        max_slots=4,
        num_pages=num_pages,
        threads=1,
    )


@asynccontextmanager
async def mesh(settings: ServiceSettings, checkpoint: Path) -> AsyncIterator[Mesh]:
    worker = ModelWorker(worker_settings(settings, checkpoint))
    bus = await Bus.connect(settings, "test")
    task = asyncio.create_task(worker.run())
    await until(lambda: task.done() or getattr(worker, "_state", None) is State.READY, 60)
    try:
        await worker.bus.flush()  # what it listens to is known to the server
        playing = Mesh(worker, bus)
        await playing.listen()
        yield playing
    finally:
        worker.stop()
        await task
        await bus.close()


def admission(prompt: list[int], lora: str = "") -> Admission:
    return Admission(
        slot=0, request_id="r", choice=0, attempt=0, detokenizer_id="d", prompt_ids=prompt,
        work=Work(params=SamplingParams(temperature=0.0, max_tokens=2, ignore_eos=True), lora=lora),
    )  # fmt: skip


async def test_claim_plan_report(settings: ServiceSettings, checkpoint: Path) -> None:
    async with mesh(settings, checkpoint) as m:
        await m.bus.publish(m.worker.subjects.presence("scheduler"), scheduler(10))
        answer = await m.ask(claim(10))
        assert isinstance(answer, Claimed)
        assert (answer.groups, answer.max_slots) == ([KvGroup(page_size=16, num_pages=32)], 4)
        assert isinstance(await m.ask(claim(11, "r1")), Refused)
        late = await m.ask(claim(9))
        assert isinstance(late, Refused)
        assert late.epoch == 10  # what the next claim must be above

        grant = {"grant_slots": [0], "grant_groups": [0], "grant_starts": [0], "grant_counts": [1], "grant_pages": [3]}
        prompt, decode, past = (columns(Span(0, start, count, True, 0)) for start, count in ((0, 5), (5, 1), (6, 1)))
        await m.plan(epoch=10, seq=0, admissions=[admission([5, 6, 7, 8, 9])], **grant, **prompt)
        await m.plan(epoch=10, seq=1, **decode)
        await m.plan(epoch=10, seq=2, **past)
        await until(lambda: len(m.of(StepReport)) == 3)
        await until(lambda: len(m.of(TokenBatch)) == 2)
        reports = m.of(StepReport)
        assert [report.seq for report in reports] == [0, 1, 2]
        assert [report.accepted.tolist() for report in reports] == [[1], [1], [0]]
        assert [report.finish.tolist() for report in reports] == [[0], [Finish.LENGTH], [0]]
        assert [batch.first_index.tolist() for batch in m.of(TokenBatch)] == [[0], [1]]
        tokens = np.concatenate([report.tokens for report in reports])
        assert np.concatenate([batch.tokens for batch in m.of(TokenBatch)]).tolist() == tokens.tolist()
        assert m.worker.presence_attributes()["reported_seq"] == 2


async def test_plans_of_other_epochs_and_after_a_gap_are_not_run(settings: ServiceSettings, checkpoint: Path) -> None:
    async with mesh(settings, checkpoint) as m:
        await m.bus.publish(m.worker.subjects.presence("scheduler"), scheduler(10))
        await m.ask(claim(10))
        await m.plan(epoch=9, seq=0)
        await m.plan(epoch=10, seq=0)
        await m.plan(epoch=10, seq=2)
        await until(lambda: m.of(StepReport))
        await m.ask(claim(11))
        await m.plan(epoch=10, seq=1)
        await m.plan(epoch=11, seq=0)
        await until(lambda: any(report.epoch == 11 for report in m.of(StepReport)))
        assert [(report.epoch, report.seq) for report in m.of(StepReport)] == [(10, 0), (11, 0)]


async def test_a_claim_in_the_middle_of_a_step_leaves_the_old_numbers_to_the_old_epoch(
    settings: ServiceSettings, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh(settings, checkpoint) as m:
        engine, began, go = m.engine, threading.Event(), threading.Event()
        launch = engine.launch

        def slow(plan: StepPlan, *, first: bool) -> object:
            if plan.seq == 1 and plan.epoch == 10:
                began.set()
                assert go.wait(20)
            return launch(plan, first=first)

        monkeypatch.setattr(engine, "launch", slow)
        await m.bus.publish(m.worker.subjects.presence("scheduler"), scheduler(10))
        await m.ask(claim(10))
        for seq in range(2):
            await m.plan(epoch=10, seq=seq)
        await until(began.is_set)
        await m.ask(claim(11))
        told = m.worker.presence_attributes()
        numbers = ("claim_epoch", "seq_epoch", "received_seq", "reported_seq")
        assert [told[name] for name in numbers] == [11, 10, 1, 0]
        go.set()
        await m.plan(epoch=11, seq=0)
        await until(lambda: [m.worker.presence_attributes()[name] for name in numbers] == [11, 11, 0, 0])


async def test_a_lost_scheduler_frees_the_group(settings: ServiceSettings, checkpoint: Path) -> None:
    async with mesh(settings, checkpoint) as m:
        subject = m.worker.subjects.presence("scheduler")
        await m.bus.publish(subject, scheduler(10))
        await m.ask(claim(10))
        await m.plan(epoch=10, seq=0, admissions=[admission([5, 6, 7])])
        await until(lambda: m.worker.presence_attributes()["reported_seq"] == 0)
        await m.bus.publish(subject, scheduler(10, State.GONE))
        await until(lambda: m.worker.presence_attributes()["claimed_by"] == "")
        engine = m.engine
        await until(lambda: not engine.running())
        assert isinstance(await m.ask(claim(20, "r1")), Claimed)


async def test_steps_go_on_while_something_is_prepared(
    settings: ServiceSettings, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparer = SleepingPreparer()
    monkeypatch.setattr(service, "load", loading(preparer))
    async with mesh(settings, checkpoint) as m:
        await m.bus.publish(m.worker.subjects.presence("scheduler"), scheduler(10))
        answer = await m.ask(claim(10))
        assert isinstance(answer, Claimed)
        assert (answer.prepares, answer.ranks) == ({"lora": 2}, 1)
        await m.prepare(10, 0, "slow")
        await m.prepare(10, 1, "bad")
        grant = {"grant_slots": [0], "grant_groups": [0], "grant_starts": [0], "grant_counts": [1], "grant_pages": [3]}
        await m.plan(epoch=10, seq=0, admissions=[admission([5, 6, 7])], **grant, **columns(Span(0, 0, 3, True, 0)))
        await until(lambda: m.of(StepReport) and m.of(Prepared))
        (refused,) = m.of(Prepared)
        assert (refused.number, refused.code, refused.param) == (1, ErrorCode.INVALID_REQUEST, "lora")
        await m.plan(epoch=10, seq=1, releases=[0], admissions=[admission([5, 6, 7], "slow")])
        await until(lambda: len(m.of(StepReport)) == 2)
        assert m.of(StepReport)[1].failures == ["lora 'slow' has not been prepared"]
        preparer.wake.set()
        await until(lambda: len(m.of(Prepared)) == 2)
        assert (m.of(Prepared)[1].number, m.of(Prepared)[1].code) == (0, None)
        await m.plan(epoch=10, seq=2, releases=[0], admissions=[admission([5, 6, 7], "slow")])
        await until(lambda: len(m.of(StepReport)) == 3)
        assert m.of(StepReport)[2].failures == []
        assert m.worker._rank is not None
        (slot,) = filter(None, m.worker._rank.engine.slots)
        assert slot.prepared == {"lora": "adapter slow"}
        assert "step-loop" not in preparer.threads

        await m.prepare(9, 2, "of an ended epoch")
        await m.ask(claim(11))
        assert preparer.forgotten == ["adapter slow"]
        await m.prepare(11, 0, "new")
        await until(lambda: len(m.of(Prepared)) == 3)
        assert preparer.begun == ["slow", "bad", "new"]


async def test_a_worker_ends_in_the_middle_of_a_preparation(
    settings: ServiceSettings, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparer = SleepingPreparer()
    monkeypatch.setattr(service, "load", loading(preparer))
    async with mesh(settings, checkpoint) as m:
        await m.bus.publish(m.worker.subjects.presence("scheduler"), scheduler(10))
        await m.ask(claim(10))
        await m.prepare(10, 0, "slow")
        await until(lambda: preparer.begun)
    preparer.wake.set()


@pytest.mark.parametrize(
    "refusal",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory\nand a trace"),
    ],
)
async def test_a_model_without_room_is_told_in_one_line(
    settings: ServiceSettings, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def full(*_: object) -> None:
        raise refusal

    monkeypatch.setattr(service, "load", full)
    with pytest.raises(RadixMeshError, match=r"^out of memory while starting: [^\n]+$"):
        await ModelWorker(worker_settings(settings, checkpoint)).run()


async def test_more_pages_than_there_is_memory(settings: ServiceSettings, checkpoint: Path) -> None:
    with pytest.raises(RadixMeshError, match=r"^out of memory while making room for the KV cache: [^\n]+$"):
        await ModelWorker(worker_settings(settings, checkpoint, num_pages=1 << 40)).run()

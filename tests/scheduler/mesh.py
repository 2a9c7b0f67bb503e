"""A scheduler on a real bus, between a fake worker group and a fake gateway."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.service import Scheduler
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.messages import (
    Admit,
    Claim,
    Claimed,
    KvEvents,
    Message,
    Presence,
    Refused,
    RequestFailed,
    StepPlan,
)
from radixmesh.shared.presence.view import PresenceView
from radixmesh.shared.subjects import Subjects
from tests.scheduler.harness import admit_message, sizes
from tests.scheduler.simulator import SimWorker


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits for something to become true, and gives it."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110  conditions may be about anything
            await asyncio.sleep(0.01)
    return value


class FakeGroup(Actor):
    """Rank 0 of a worker group, with the simulator for a model."""

    service = "model_worker"

    def __init__(self, settings: ServiceSettings, claimed: Claimed | None = None, *, pin: str = "") -> None:
        super().__init__(settings)
        self.sizes = (claimed or sizes()).model_copy(update={"group_id": self.instance})
        self.worker = SimWorker(self.sizes)
        self.plans: list[StepPlan] = []
        self.claims: list[Claim] = []
        self.paused = asyncio.Event()
        self.paused.set()
        self.in_step = False
        """Whether a step is held up by `paused`."""
        self.drop_plan = self.drop_report = -1
        """Number of a plan or report that the bus loses."""
        self.beats = 0
        """Heartbeats so far."""
        self._pin = pin
        self._claimed_by = ""
        self._epoch = -1
        self._seq_epoch = self._received = self._reported = -1
        self._queue: asyncio.Queue[StepPlan | int] = asyncio.Queue()
        """Plans, and epochs that begin; a step that runs when one of these comes runs to its end first."""

    def model(self) -> str:
        return "toy"

    def presence_attributes(self) -> dict[str, Any]:
        self.beats += 1
        return {
            "group_id": self.instance,
            "rank": 0,
            "tp": 1,
            "replica": self._pin,
            "claimed_by": self._claimed_by,
            "claim_epoch": self._epoch,
            "seq_epoch": self._seq_epoch,
            "received_seq": self._received,
            "reported_seq": self._reported,
        }

    async def setup(self) -> None:
        self.on(Claim, self._claim)
        self.on(StepPlan, self._plan)
        self.members.on_change.append(self._changed)
        await self.listen(self.subjects.group_claim(self.instance))
        await self.listen(self.subjects.group_plan(self.instance))
        self.spawn(self._work(), essential=True)

    async def _claim(self, claim: Claim, envelope: Envelope) -> None:
        if self._claimed_by not in ("", claim.replica_id) or claim.epoch <= self._epoch:
            await self.reply(envelope, Refused(reason="taken", epoch=self._epoch))
            return
        self.claims.append(claim)
        self._claimed_by, self._epoch = claim.replica_id, claim.epoch
        self._queue.put_nowait(claim.epoch)
        await self.reply(envelope, self.sizes)
        await self.beat()

    def _begin(self, epoch: int) -> None:
        self.worker = SimWorker(self.sizes)
        self._seq_epoch, self._received, self._reported = epoch, -1, -1

    def _changed(self, before: Presence | None, now: Presence | None) -> None:
        if now is None and before is not None and before.instance == self._claimed_by and before.epoch == self._epoch:
            self._claimed_by = ""
            self._queue.put_nowait(-1)
            self.spawn(self.beat())

    def _plan(self, plan: StepPlan, _envelope: Envelope) -> None:
        if plan.epoch != self._epoch:
            return
        if plan.seq == self.drop_plan:
            self.drop_plan = -1
            return
        self.plans.append(plan)
        self._queue.put_nowait(plan)

    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            if isinstance(item, int):
                self._begin(item)
            elif (item.epoch, item.seq) == (self._seq_epoch, self._received + 1):
                await self._step(item)

    async def _step(self, plan: StepPlan) -> None:
        self._received = plan.seq
        self.in_step = not self.paused.is_set()
        await self.paused.wait()
        self.in_step = False
        report = self.worker.run(plan)
        await asyncio.sleep(0.002)
        self._reported = plan.seq
        if plan.seq == self.drop_report:
            self.drop_report = -1
        elif plan.epoch == self._epoch:
            await self.bus.publish(self.subjects.replica_report(self._claimed_by), report)


class Mesh:
    """What a test holds: starts services, speaks to them, listens."""

    def __init__(self, settings: ServiceSettings, bus: Bus) -> None:
        self.settings = settings
        self.bus = bus
        self.subjects = Subjects(settings.namespace)
        self.members = PresenceView()
        self.failed: list[RequestFailed] = []
        self.events: list[KvEvents] = []
        self.other: list[Message] = []
        self.tasks: dict[Actor, asyncio.Task[None]] = {}

    def receive(self, envelope: Envelope) -> None:
        message = envelope.unpack()
        match message:
            case Presence():
                self.members.update(message)
            case RequestFailed():
                self.failed.append(message)
            case KvEvents():
                self.events.append(message)
            case _:
                self.other.append(message)

    def start(self, actor: Actor) -> None:
        self.tasks[actor] = asyncio.get_running_loop().create_task(actor.run())

    def scheduler(self, **options: Any) -> Scheduler:
        options = {"warm_min_tokens": 1, "decode_headroom": 0, "instance": f"s-{uuid.uuid4().hex[:6]}"} | options
        actor = Scheduler(SchedulerSettings(**self.settings.model_dump(exclude={"instance"}), **options))
        self.start(actor)
        return actor

    def group(self, claimed: Claimed | None = None, *, pin: str = "", instance: str = "") -> FakeGroup:
        update = {"instance": instance or f"w-{uuid.uuid4().hex[:6]}"}
        actor = FakeGroup(self.settings.model_copy(update=update), claimed, pin=pin)
        self.start(actor)
        return actor

    async def stop(self, actor: Actor) -> None:
        actor.stop()
        await self.tasks.pop(actor)

    async def kill(self, actor: Actor) -> None:
        """Its connection breaks, and nothing is said."""
        task = self.tasks.pop(actor)
        await actor.bus.client.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await actor._tasks.cancel()

    async def claimed(self, scheduler: Scheduler) -> Presence:
        """The scheduler's presence, once it has a group."""

        def ready() -> Presence | None:
            found = [m for m in self.members.ready("scheduler") if m.instance == scheduler.instance]
            return found[0] if found and found[0].epoch == scheduler.epoch else None

        member: Presence = await until(ready)
        return member

    async def ask(self, scheduler: Scheduler, request_id: str, length: int = 20, **options: Any) -> Admit:
        prompt = np.random.default_rng(length).integers(1, 900, length).astype(np.int32)
        message = admit_message(request_id, prompt, epoch=options.pop("epoch", scheduler.epoch), **options)
        await self.bus.publish(self.subjects.replica_inbox(scheduler.instance), message)
        return message


@asynccontextmanager
async def mesh(settings: ServiceSettings) -> AsyncIterator[Mesh]:
    """Ends everything that was started, in the end."""
    bus = await Bus.connect(settings, "test")
    held = Mesh(settings, bus)
    at = held.subjects
    for subject in (at.presence(), at.gateway_inbox("gw"), at.kv_events, at.detokenizer_inbox("dt")):
        await bus.subscribe(subject, held.receive)
    try:
        yield held
    finally:
        for actor in list(held.tasks):
            await held.stop(actor)
        await bus.close()

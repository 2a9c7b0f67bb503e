"""A ring of real services in the test's own process, around a scripted gateway that sees every message to it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.service import Detokenizer
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.service import Scheduler
from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.service import Tokenizer
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.messages import Finish, Message, RequestFailed, Routed, SamplingParams, Submit, TextBatch, Work
from radixmesh.shared.subjects import Subjects
from tests.support import until


class Answer:
    """What came back for one request."""

    def __init__(self) -> None:
        self.routed: Routed | None = None
        self.failed: RequestFailed | None = None
        self.cached_tokens = 0
        self.ended = asyncio.Event()


class LocalMesh:
    """One tokenizer, one detokenizer, and as many replicas as a test starts."""

    def __init__(self, settings: ServiceSettings, checkpoint: Path, bus: Bus) -> None:
        self.bus = bus
        self.model = checkpoint.name
        self.subjects = Subjects(settings.namespace)
        self.tokenizer: Tokenizer
        self.answers: dict[str, Answer] = {}
        self._common = settings.model_dump(include={"nats_url", "namespace", "heartbeat_interval", "log_format"})
        self._checkpoint = str(checkpoint)
        self._tasks: dict[Actor, asyncio.Task[None]] = {}

    # -- services --

    def _start(self, actor: Actor) -> None:
        self._tasks[actor] = asyncio.create_task(actor.run())

    async def stop(self, actor: Actor) -> None:
        """Ends one service in order."""
        actor.stop()
        await self._tasks.pop(actor)

    async def stop_all(self) -> None:
        await asyncio.gather(*(self.stop(actor) for actor in list(self._tasks)))

    def tokenize(self, instance: str) -> Tokenizer:
        """Starts a tokenizer."""
        unit = Tokenizer(TokenizerSettings(**self._common, model=self._checkpoint, instance=instance))
        self._start(unit)
        return unit

    def schedule(self, replica: str) -> Scheduler:
        """Starts a scheduler; it takes the worker of its name."""
        unit = Scheduler(SchedulerSettings(**self._common, replica=replica))
        self._start(unit)
        return unit

    async def start(self, *replicas: str, **worker: Any) -> list[Scheduler]:
        """Starts everything, and waits until the tokenizer sees it ready. Gives the replicas' schedulers."""
        self.tokenizer = self.tokenize("t0")
        self._start(Detokenizer(DetokenizerSettings(**self._common, model=self._checkpoint, instance="d0")))
        options = {"dtype": "float32", "threads": 1, "num_pages": 512, "max_slots": 8, **worker}
        for name in replicas:
            own = {"instance": f"w-{name}", "replica": name, "model": self._checkpoint}
            self._start(ModelWorker(ModelWorkerSettings(**self._common, **own, **options)))
        schedulers = [self.schedule(name) for name in replicas]
        await self.follows(self.tokenizer, *schedulers)
        return schedulers

    async def follows(self, tokenizer: Tokenizer, *schedulers: Scheduler) -> None:
        """Waits until `tokenizer` can route to these schedulers, and is in step with their caches."""

        def in_step() -> bool:
            known = tokenizer._router._replicas
            return bool(tokenizer.members.ready("detokenizer", self.model)) and all(
                (replica := known.get(unit.instance)) is not None
                and replica.ready
                and replica.epoch == unit.epoch
                and replica.index.in_step
                for unit in schedulers
            )

        await until(in_step, 60)

    # -- requests --

    def receive(self, envelope: Envelope) -> None:
        message: Message = envelope.unpack()
        if isinstance(message, TextBatch):
            for row, request_id in enumerate(message.request_ids):
                answer = self.answers[request_id]
                answer.cached_tokens = int(message.cached_tokens[row])
                if message.finish[row] != Finish.RUNNING:
                    answer.ended.set()
        elif isinstance(message, Routed):
            self.answers[message.request_id].routed = message
        elif isinstance(message, RequestFailed):
            self.answers[message.request_id].failed = message
            self.answers[message.request_id].ended.set()

    async def ask(self, prompt: list[int], max_tokens: int = 2) -> Answer:
        """Sends a prompt round the ring and waits for its end."""
        request_id = f"{len(self.answers):032x}"
        answer = self.answers[request_id] = Answer()
        submit = Submit(
            request_id=request_id,
            gateway_id="gw",
            model=self.model,
            token_ids=np.array(prompt, np.int32),
            work=Work(params=SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True)),
            time_left=120,
        )
        await self.bus.publish(self.subjects.submit(self.model), submit)
        async with asyncio.timeout(60):
            await answer.ended.wait()
        assert answer.failed is None, answer.failed
        return answer


def places(answers: list[Answer]) -> Counter[str]:
    """How many requests each replica got."""
    return Counter(answer.routed.replica_id for answer in answers if answer.routed is not None)


@asynccontextmanager
async def local_mesh(settings: ServiceSettings, checkpoint: Path) -> AsyncIterator[LocalMesh]:
    """Ends everything that was started, in the end."""
    bus = await Bus.connect(settings, "gw")
    mesh = LocalMesh(settings, checkpoint, bus)
    await bus.subscribe(mesh.subjects.gateway_inbox("gw"), mesh.receive)
    try:
        yield mesh
    finally:
        await mesh.stop_all()
        await bus.close()

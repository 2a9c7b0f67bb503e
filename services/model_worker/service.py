"""The model worker: one rank of one worker group.

Rank 0 speaks for the group: it answers claims, reports, and sends tokens. Every rank receives every plan.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.engine.outputs import token_batches
from radixmesh.services.model_worker.engine.preparation import PreparationThreads
from radixmesh.services.model_worker.engine.step_loop import EpochProgress, StepLoop, StepOutput
from radixmesh.services.model_worker.engine.tracing import SequenceSpans
from radixmesh.services.model_worker.errors import is_out_of_memory
from radixmesh.services.model_worker.group.claim import ClaimState
from radixmesh.services.model_worker.start import Rank, load
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import BusError, PayloadTooLarge, RadixMeshError
from radixmesh.shared.messages import Claim, Claimed, Prepare, Prepared, Presence, StepPlan
from radixmesh.shared.model_files.model_source import default_name

log = logging.getLogger(__name__)


class ModelWorker(Actor):
    """Loads a slice of a model, then runs the plans of the scheduler that has claimed the group."""

    service = "model_worker"
    watches = ("scheduler",)

    def __init__(self, settings: ModelWorkerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.group_id = settings.group or self.instance
        self._claim_state = ClaimState(settings.replica)
        self._progress = 0.0
        self._loading = "starting"
        self._spans = SequenceSpans()
        self._outbox: asyncio.Queue[StepOutput] = asyncio.Queue()
        self._loop_thread: StepLoop | None = None
        self._preparing: PreparationThreads | None = None
        self._rank: Rank | None = None

    def model(self) -> str:
        return self.settings.served_model_name or default_name(self.settings.model)

    def readiness(self) -> str:
        return self._loading

    def presence_attributes(self) -> dict[str, Any]:
        steps = self._loop_thread.progress if self._loop_thread else EpochProgress()
        return {
            "group_id": self.group_id,
            "rank": self.settings.rank,
            "tp": self.settings.tp,
            "quantization": self.settings.quantization,
            "replica": self.settings.replica,
            "claimed_by": self._claim_state.claimed_by,
            "claim_epoch": self._claim_state.epoch,
            "seq_epoch": steps.epoch,
            "received_seq": steps.received,
            "reported_seq": steps.reported,
            "progress": round(self._progress, 3),
            "loading": self._loading,
        }

    async def setup(self) -> None:
        loop = asyncio.get_running_loop()

        def progress(fraction: float, what: str) -> None:
            loop.call_soon_threadsafe(self._set_progress, fraction, what)

        def emit(output: StepOutput) -> None:
            loop.call_soon_threadsafe(self._outbox.put_nowait, output)

        def prepared(asked: Prepare, answer: Prepared) -> None:
            loop.call_soon_threadsafe(self._answer, asked, answer)

        def failed(error: Exception) -> None:
            loop.call_soon_threadsafe(self.stop, error)

        self._rank = await self._load(progress)
        self._loop_thread = StepLoop(
            self._rank.engine,
            self._rank.inbox,
            emit=emit,
            failed=failed,
            depth=self._rank.depth,
            stream_interval=self.settings.stream_interval_ms / 1000,
        )
        self._preparing = PreparationThreads(prepared)
        self.on(StepPlan, self._plan)
        self.on(Prepare, self._prepare)
        await self.listen(self.subjects.group_plan(self.group_id))
        await self._wait_for_ranks(self._rank)
        self._loop_thread.start()  # behind the barrier: its first plan is told to the ranks by the same collectives
        self._loading = ""
        self._progress = 1.0
        if self.settings.rank == 0:
            self.on(Claim, self._claim)
            self.members.on_change.append(self._member_changed)
            await self.listen(self.subjects.group_claim(self.group_id))
            self.spawn(self._send(), essential=True)

    async def _load(self, progress: Callable[[float, str], None]) -> Rank:
        try:
            return await asyncio.to_thread(load, self.settings, progress)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RadixMeshError(f"out of memory while {self._loading}: {reason}") from None

    async def _wait_for_ranks(self, rank: Rank) -> None:
        """Until every rank listens for plans: a claim before that would send the first plan past some of them."""
        if rank.mesh.world.size > 1:
            await self.bus.flush()
            await asyncio.to_thread(rank.mesh.world.control.barrier)

    async def teardown(self) -> None:
        if self._preparing is not None:
            self._preparing.stop()
        if self._loop_thread is not None:
            await asyncio.to_thread(self._loop_thread.stop)
        if self._rank is not None:
            self._rank.close()

    def _set_progress(self, fraction: float, what: str) -> None:
        self._progress, self._loading = fraction, what

    # -- claims --

    async def _claim(self, claim: Claim, envelope: Envelope) -> None:
        assert self._rank is not None  # noqa: S101  claims are listened to only once loaded
        refusal = self._claim_state.consider(claim, self.members)
        if refusal is not None:
            await self.reply(envelope, refusal)
            return
        log.info("claimed by %s", claim.replica_id)
        self._reset(claim.epoch)
        await self.reply(envelope, self._claimed())
        await self.beat()

    def _claimed(self) -> Claimed:
        assert self._rank is not None  # noqa: S101
        return self._rank.sizes.model_copy(update={"group_id": self.group_id})

    def _member_changed(self, before: Presence | None, now: Presence | None) -> None:
        if now is None and before is not None and self._claim_state.release(before):
            log.warning("scheduler %s is gone; this group is free", before.instance)
            self._reset(-1)
            self.spawn(self.beat())

    def _reset(self, epoch: int) -> None:
        if self._loop_thread is not None and self._rank is not None:
            self._rank.engine.prepared.begin(epoch)
            self._loop_thread.reset(epoch)

    # -- plans and what comes of them --

    def _plan(self, plan: StepPlan, _envelope: Envelope) -> None:
        if self._loop_thread is not None and self._heeds(plan.epoch):
            self._loop_thread.submit(plan)

    def _heeds(self, epoch: int) -> bool:
        """Whether what comes with this epoch is for us; ranks above 0 hear of no claims, and must see for themselves.

        They run plans in rank 0's order, and prepare nothing for an epoch below the highest one.
        """
        return self.settings.rank > 0 or epoch == self._claim_state.epoch

    async def _send(self) -> None:
        while True:
            output = await self._outbox.get()
            if output.epoch != self._claim_state.epoch:
                continue  # of a claim that has ended
            try:
                await self._publish(output)
            except PayloadTooLarge:
                log.exception("a step's output does not fit the bus")  # the reader sees a gap, and recovers
            except BusError as error:
                log.warning("a step's output was lost: %s", error)

    async def _publish(self, output: StepOutput) -> None:
        replica = self._claim_state.claimed_by
        if output.report is not None:
            await self.bus.publish(self.subjects.replica_report(replica), output.report)
        self._spans.released(output.released)
        self._spans.admitted(output.admissions)
        begun: dict[int, str] = {}
        for result in output.results:
            begun |= self._spans.advanced(result)
        for detokenizer, batch in token_batches(output.results, replica, output.epoch, begun):
            await self.bus.publish(self.subjects.detokenizer_inbox(detokenizer), batch)

    # -- preparations and what comes of them --

    def _prepare(self, asked: Prepare, _envelope: Envelope) -> None:
        if self._rank is None or self._preparing is None or not self._heeds(asked.epoch):
            return
        job = self._rank.engine.prepared.ask(asked)
        if job is not None:
            self._preparing.run(asked, job)

    def _answer(self, asked: Prepare, answer: Prepared) -> None:
        self.spawn(self.bus.publish(self.subjects.replica_report(asked.replica_id), answer))

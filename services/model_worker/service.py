"""The model worker: one rank of one worker group.

Rank 0 speaks for the group: it answers claims, reports, and sends tokens. Every rank receives every plan.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import torch

from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.engine.outputs import token_batches
from radixmesh.services.model_worker.engine.step_loop import EpochProgress, StepLoop, StepOutput
from radixmesh.services.model_worker.errors import is_out_of_memory
from radixmesh.services.model_worker.group.claim import ClaimDesk
from radixmesh.services.model_worker.start import Loaded, load
from radixmesh.services.model_worker.tracing import SequenceSpans
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import BusError, PayloadTooLarge, RadixMeshError
from radixmesh.shared.messages import Claim, Claimed, Presence, StepPlan
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
        self._desk = ClaimDesk(settings.replica)
        self._progress = 0.0
        self._loading = "starting"
        self._spans = SequenceSpans()
        self._outbox: asyncio.Queue[StepOutput] = asyncio.Queue()
        self._loop_thread: StepLoop | None = None
        self._loaded: Loaded | None = None

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
            "claimed_by": self._desk.claimed_by,
            "claim_epoch": self._desk.epoch,
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

        def failed(error: Exception) -> None:
            loop.call_soon_threadsafe(self.stop, error)

        self._loaded = await self._load(progress)
        self._loop_thread = StepLoop(
            self._loaded.engine,
            self._loaded.order,
            emit=emit,
            failed=failed,
            depth=self._loaded.depth,
            stream_interval=self.settings.stream_interval_ms / 1000,
        )
        self._loop_thread.start()
        self.on(StepPlan, self._plan)
        await self.listen(self.subjects.group_plan(self.group_id))
        await self._wait_for_ranks(self._loaded)
        self._loading = ""
        self._progress = 1.0
        if self.settings.rank == 0:
            self.on(Claim, self._claim)
            self.members.on_change.append(self._member_changed)
            await self.listen(self.subjects.group_claim(self.group_id))
            self.spawn(self._send(), essential=True)

    async def _load(self, progress: Callable[[float, str], None]) -> Loaded:
        try:
            return await asyncio.to_thread(load, self.settings, progress)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RadixMeshError(f"out of memory while {self._loading}: {reason}") from None

    async def _wait_for_ranks(self, loaded: Loaded) -> None:
        """Until every rank listens for plans: a claim before that would send the first plan past some of them."""
        if self.settings.tp > 1:
            await self.bus.flush()
            await asyncio.to_thread(loaded.group.all_gather, torch.zeros(1))

    async def teardown(self) -> None:
        if self._loop_thread is not None:
            await asyncio.to_thread(self._loop_thread.stop)
        if self._loaded is not None:
            self._loaded.close()

    def _set_progress(self, fraction: float, what: str) -> None:
        self._progress, self._loading = fraction, what

    # -- claims --

    async def _claim(self, claim: Claim, envelope: Envelope) -> None:
        assert self._loaded is not None  # noqa: S101  claims are listened to only once loaded
        refusal = self._desk.consider(claim, self.members)
        if refusal is not None:
            await self.reply(envelope, refusal)
            return
        log.info("claimed by %s", claim.replica_id)
        self._reset(claim.epoch)
        await self.reply(envelope, self._claimed())
        await self.beat()

    def _claimed(self) -> Claimed:
        assert self._loaded is not None  # noqa: S101
        return self._loaded.sizes.model_copy(update={"group_id": self.group_id})

    def _member_changed(self, before: Presence | None, now: Presence | None) -> None:
        if now is None and before is not None and self._desk.release(before):
            log.warning("scheduler %s is gone; this group is free", before.instance)
            self._reset(-1)
            self.spawn(self.beat())

    def _reset(self, epoch: int) -> None:
        if self._loop_thread is not None:
            self._loop_thread.reset(epoch)

    # -- plans and what comes of them --

    def _plan(self, plan: StepPlan, _envelope: Envelope) -> None:
        # Ranks above 0 hear of no claims: they follow rank 0's order of plans.
        if self._loop_thread is not None and (self.settings.rank > 0 or plan.epoch == self._desk.epoch):
            self._loop_thread.submit(plan)

    async def _send(self) -> None:
        while True:
            output = await self._outbox.get()
            if output.epoch != self._desk.epoch:
                continue  # of a claim that has ended
            try:
                await self._publish(output)
            except PayloadTooLarge:
                log.exception("a step's output does not fit the bus")  # the reader sees a gap, and recovers
            except BusError as error:
                log.warning("a step's output was lost: %s", error)

    async def _publish(self, output: StepOutput) -> None:
        replica = self._desk.claimed_by
        if output.report is not None:
            await self.bus.publish(self.subjects.replica_report(replica), output.report)
        self._spans.released(output.released)
        self._spans.admitted(output.admissions)
        begun: dict[int, str] = {}
        for result in output.results:
            begun |= self._spans.advanced(result)
        for detokenizer, batch in token_batches(output.results, replica, output.epoch, begun):
            await self.bus.publish(self.subjects.detokenizer_inbox(detokenizer), batch)

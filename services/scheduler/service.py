"""The scheduler: one replica's queue, prefix cache and batches. It never touches a tensor."""

import asyncio
import logging
import time
from typing import Any

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.services.scheduler.memory.block_log import BlockLog
from radixmesh.services.scheduler.mesh.load import load_attributes
from radixmesh.services.scheduler.mesh.pairing import WorkerWatch, claimable, wrong_sizes
from radixmesh.services.scheduler.mesh.spans import QueueSpans
from radixmesh.services.scheduler.outgoing import Effect, ToGateway
from radixmesh.services.scheduler.planning.reports import WorkerOutOfStep
from radixmesh.shared import telemetry
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import BusError, ErrorCode, MessageError, RadixMeshError, RequestError
from radixmesh.shared.messages import (
    Admit,
    CacheFlushed,
    Cancel,
    Claim,
    Claimed,
    FlushCache,
    KvSnapshotRequest,
    Prepared,
    Presence,
    Refused,
    StepReport,
)

log = logging.getLogger(__name__)

CLAIM_TIMEOUT = 3.0
DRAIN_SECONDS = 3.0
_PAIRING_PAUSE = 0.5
_TICK = 1.0
_BEAT_PAUSE = 0.2


class Scheduler(Actor):
    """Claims a worker group, then plans its steps until one of the two is gone."""

    service = "scheduler"
    watches = ("model_worker", "gateway")

    def __init__(self, settings: SchedulerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.core: SchedulerCore | None = None
        self._sizes: Claimed | None = None
        self._watch: WorkerWatch | None = None
        self._blocks: BlockLog | None = None
        self._spans = QueueSpans(self.instance)
        self._outbox: list[Effect] = []
        self._wake = asyncio.Event()
        """Something has happened: see `_pump`."""
        self._seek = asyncio.Event()
        """The members have changed, or the group was lost: see `_pair`."""
        self._idle = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._beat_load = 0
        self._beat_at = 0.0
        self._checked = False

    def model(self) -> str:
        return self._watch.model if self._watch is not None else ""

    def readiness(self) -> str:
        return "" if self.core is not None else "waiting for a worker group"

    def presence_attributes(self) -> dict[str, Any]:
        if self.core is None:
            return {"max_queued": self.settings.max_queued_requests}
        return load_attributes(self.core.replica)

    async def setup(self) -> None:
        self.on(Admit, self._on_admit)
        self.on(Cancel, self._on_cancel)
        self.on(StepReport, self._on_report)
        self.on(Prepared, self._on_prepared)
        self.on(FlushCache, self._on_flush)
        self.on(KvSnapshotRequest, self._on_snapshot)
        self.on(Presence, self._on_presence)
        self.members.on_change.append(self._on_change)
        await self.listen(self.subjects.replica_inbox(self.instance))
        await self.listen(self.subjects.replica_report(self.instance))
        await self.listen(self.subjects.replica_control(self.instance))
        await self.listen(self.subjects.cancel)
        self.spawn(self._pump(), essential=True)
        self.spawn(self._pair(), essential=True)
        self.spawn(self._tick(), essential=True)

    async def drain(self) -> None:
        """Hands back what waits, and lets what runs end if it does so soon."""
        if self.core is not None:
            self.core.hand_back_waiting("this replica is ending", time.monotonic())
            self._idle.clear()
            self._wake.set()
            try:
                await asyncio.wait_for(self._idle.wait(), DRAIN_SECONDS)
            except TimeoutError:
                log.warning("ending with sequences still running")

    async def teardown(self) -> None:
        self._lose("this replica is ending")
        await self._send_effects()

    def epoch_raised(self) -> None:
        self._lose("others knew a higher epoch of this replica")

    # -- messages --

    def _on_admit(self, admit: Admit, envelope: Envelope) -> None:
        if self.core is None or admit.replica_epoch != self.epoch or self.draining:
            raise RequestError(ErrorCode.REPLICA_LOST, "this replica has started anew since it was chosen")
        if telemetry.enabled:
            self._spans.parent = telemetry.context_from(envelope.headers)
        self.core.admit(admit, envelope.arrived)
        self._wake.set()

    def _on_cancel(self, cancel: Cancel, _envelope: Envelope) -> None:
        if self.core is not None:
            self.core.cancel(cancel, time.monotonic())
            self._wake.set()

    def _on_report(self, report: StepReport, _envelope: Envelope) -> None:
        if self.core is None:
            return
        try:
            self.core.report(report, time.monotonic())
        except WorkerOutOfStep as error:
            self._lose(str(error))
        except Exception:
            log.exception("report %d could not be taken in", report.seq)
            self._lose("the scheduler failed on a report")
        self._wake.set()

    def _on_prepared(self, message: Prepared, _envelope: Envelope) -> None:
        if self.core is not None:
            self.core.prepared(message, time.monotonic())
            self._wake.set()

    async def _on_flush(self, _message: FlushCache, envelope: Envelope) -> None:
        freed, used = self.core.flush() if self.core is not None else (0, 0)
        self._wake.set()
        await self.reply(envelope, CacheFlushed(pages_freed=freed, pages_in_use=used))

    def _on_snapshot(self, _message: KvSnapshotRequest, _envelope: Envelope) -> None:
        if self.core is not None and self._blocks is not None:
            self._blocks.snapshot(self.core.replica.kv.tree)
            self._wake.set()

    def _on_presence(self, beat: Presence, _envelope: Envelope) -> None:
        self.members.update(beat)
        core, watch = self.core, self._watch
        if core is not None and watch is not None:
            reason = watch.heard(beat, core.replica.planned_seq, core.replica.reported_seq)
            if reason:
                self._lose(reason)

    def _on_change(self, before: Presence | None, now: Presence | None) -> None:
        if now is not None and now.service == "model_worker":
            self._seek.set()
        if self.core is None or self._watch is None or before is None:
            return
        if before.instance == self._watch.instance:
            reason = self._watch.lost(now)
            if reason:
                self._lose(reason)
        elif before.service == "gateway" and now is None:
            self.core.gateway_gone(before.instance, time.monotonic())
            self._wake.set()

    # -- the worker group --

    async def _pair(self) -> None:
        """Claims a group whenever there is none."""
        while True:
            await self._seek.wait()
            self._seek.clear()
            for worker in claimable(self.members.ready("model_worker"), self.settings.replica, self.instance):
                if self.core is not None or self.draining or await self._claim(worker):
                    break
                await asyncio.sleep(_PAIRING_PAUSE)
                self._seek.set()

    async def _claim(self, worker: Presence) -> bool:
        """Claims a group under a new epoch, which is told first: a group frees itself of epochs that have ended."""
        group = str(worker.attributes.get("group_id", ""))
        self._own_epoch.renew()
        claim = Claim(scheduler_id=self.instance, replica_id=self.instance, epoch=self.epoch)
        try:
            await self.beat()
            answer = await self.bus.request(self.subjects.group_claim(group), claim, timeout=CLAIM_TIMEOUT)
        except (BusError, MessageError) as error:
            log.warning("claiming group %s: %s", group, error)
            return False
        if not isinstance(answer, Claimed):
            log.info("group %s is not to be had: %s", group, getattr(answer, "reason", answer.TAG))
            if isinstance(answer, Refused) and answer.epoch >= self.epoch:
                self._own_epoch.renew(above=answer.epoch)
            return False
        if claim.epoch != self.epoch:
            log.info("group %s is claimed again: others knew a higher epoch of %s", group, self.instance)
            return False
        if wrong := wrong_sizes(answer):
            log.error("group %s cannot be used: %s", group, wrong)
            return False
        self._begin(worker, answer)
        await self.beat()
        return True

    def _begin(self, worker: Presence, sizes: Claimed) -> None:
        self._sizes = sizes
        self._watch = WorkerWatch(worker, self.instance, self.epoch)
        self._blocks = BlockLog(self.instance, self.epoch, sizes.groups[0].page_size)
        self.core = SchedulerCore(
            self.settings,
            sizes,
            replica_id=self.instance,
            epoch=self.epoch,
            max_payload=self.bus.max_payload,
            watcher=self._spans,
            listener=self._blocks,
        )
        pages = ", ".join(
            f"{group.kind.value}: {group.num_pages} of {group.page_size} tokens" for group in sizes.groups
        )
        log.info("claimed group %s: pages %s", sizes.group_id, pages)
        self._wake.set()

    def _lose(self, reason: str) -> None:
        """Ends the claim: everything it ran goes back to the gateways, and the epoch is over."""
        core, self.core = self.core, None
        if core is None:
            return
        log.log(logging.INFO if self.draining else logging.WARNING, "gave up the worker group: %s", reason)
        core.lost(reason, time.monotonic())
        self._outbox += core.take_effects()
        self._own_epoch.renew()
        self._seek.set()
        self._wake.set()

    # -- sending --

    async def _pump(self) -> None:
        """After anything has happened: sends what came of it, and plans as far ahead as the pipeline goes."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._send_prepares()
                await self._send_plans()
                await self._send_effects()
                await self._send_blocks()
                await self._beat_if_changed()
                if self.core is None or self.core.idle:
                    self._idle.set()
            except RadixMeshError as error:
                self._lose(f"sending failed: {error}")
            except Exception:
                log.exception("planning failed")
                self._lose("the scheduler failed to plan")

    async def _send_prepares(self) -> None:
        """On the plans' subject, so that each rank has them in one order with the plans."""
        while self.core is not None and self._sizes is not None:
            message = self.core.next_prepare(time.monotonic())
            if message is None:
                return
            await self.bus.publish(self.subjects.group_plan(self._sizes.group_id), message)

    async def _send_plans(self) -> None:
        while self.core is not None and self._sizes is not None:
            now = time.monotonic()
            if delay := self.core.plan_delay(now):
                self._wake_in(delay)
                return
            plan = self.core.next_plan(now)
            if plan is None:
                return
            await self.bus.publish(self.subjects.group_plan(self._sizes.group_id), plan)

    def _wake_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._wake.set)

    async def _send_effects(self) -> None:
        if self.core is not None:
            self._outbox += self.core.take_effects()
        while self._outbox:
            effect = self._outbox.pop(0)
            if isinstance(effect, ToGateway):
                await self.bus.publish(self.subjects.gateway_inbox(effect.gateway_id), effect.message)
            else:
                await self.bus.publish(self.subjects.detokenizer_inbox(effect.detokenizer_id), effect.message)

    async def _send_blocks(self) -> None:
        if self._blocks is not None and self.core is not None:
            for events in self._blocks.take():
                await self.bus.publish(self.subjects.kv_events, events)

    async def _beat_if_changed(self) -> None:
        """Tells of the load before the next heartbeat when it has changed by a quarter of the slots."""
        if self.core is None:
            return
        replica, now = self.core.replica, time.monotonic()
        load = replica.slots.running + len(replica.queue)
        if abs(load - self._beat_load) * 4 >= replica.slots.usable and now - self._beat_at > _BEAT_PAUSE:
            self._beat_load, self._beat_at = load, now
            await self.beat()

    async def _tick(self) -> None:
        """Deadlines, ageing, and the books, which are checked once whenever everything has come to rest."""
        while True:
            await asyncio.sleep(_TICK)
            if self.core is None:
                continue
            self.core.tick(time.monotonic())
            if self.core.idle and not self._checked:
                self._check_books(self.core)
            self._checked = self.core.idle
            self._wake.set()

    def _check_books(self, core: SchedulerCore) -> None:
        problems = core.check()
        if problems:
            log.error("the KV memory's books are wrong and start anew: %s", "; ".join(problems))
            core.repair()
            if self._blocks is not None:
                self._blocks.clear()

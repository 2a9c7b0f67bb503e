"""The worker's own thread: takes plans, runs them in order, hands out what came of them.

The bus lives on another thread, so a step never waits for it while there are plans.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from radixmesh.services.model_worker.engine.engine import Engine, LaunchedStep
from radixmesh.services.model_worker.engine.outputs import StepResult, step_report
from radixmesh.services.model_worker.group.inbox import Inbox, Item, Reset
from radixmesh.shared.messages import Admission, StepPlan, StepReport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EpochProgress:
    """How far the loop is with an epoch's plans. One value, so that whoever reads it gets numbers of one epoch."""

    epoch: int = -1
    received: int = -1
    """Last plan taken from the inbox."""
    reported: int = -1
    """Last plan whose report was handed out."""


@dataclass(slots=True)
class _Collected:
    """What a plan's steps gave so far; shared by its flights."""

    results: list[StepResult] = field(default_factory=list)
    told: int = 0
    """How many of them have been handed out."""


@dataclass(slots=True)
class _Launched:
    plan: StepPlan
    flight: LaunchedStep
    began: float
    """When the plan's first step was launched."""
    gap_us: int
    last: bool
    """Whether this is the plan's last step."""
    collected: _Collected


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one or more steps of a plan gave; `report` comes with the plan's last step."""

    epoch: int
    results: list[StepResult]
    released: list[int]
    admissions: list[Admission]
    report: StepReport | None


class StepLoop:
    """Runs an `Engine` on its own thread.

    Args:
        emit: called on this thread with the steps' output, in order; must be quick.
        failed: called on this thread once, if the loop ends on an error (a dead rank, a lost device).
        depth: steps launched before the oldest is collected: 1 on an accelerator, 0 where launch computes at once.
        stream_interval: seconds for which tokens may wait for those of the same plan's next steps, so that they go
            round the mesh together. The first and the last token of a sequence never wait.
    """

    def __init__(
        self,
        engine: Engine,
        inbox: Inbox,
        emit: Callable[[StepOutput], None],
        failed: Callable[[Exception], None],
        depth: int,
        stream_interval: float = 0.0,
    ) -> None:
        self._engine = engine
        self._inbox = inbox
        self._emit = emit
        self._failed = failed
        self._depth = depth
        self._stream_interval = stream_interval
        self._emitted_at = 0.0
        self._flights: deque[_Launched] = deque()
        self._busy_until = 0.0
        """When the last step ended, if sequences were running then; else 0."""
        self._thread = threading.Thread(target=self._run, name="step-loop", daemon=True)
        self.progress = EpochProgress()
        """Set on this thread, read by others. Behind a long step it is still that of an epoch which has ended."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the loop after the steps that are queued now; it may never have been started."""
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout=2.0)

    def submit(self, plan: StepPlan) -> None:
        """Queues a plan; those out of turn are dropped when their turn comes."""
        self._inbox.put(plan)

    def reset(self, epoch: int) -> None:
        """Queues the end of all sequences; then plans of `epoch` are awaited."""
        self._inbox.put(Reset(epoch))

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, Reset):
                    self._begin(item.epoch)
                elif self._in_turn(item):
                    self._step(item)
        except Exception as error:  # noqa: BLE001  told to the service, which ends the process
            self._failed(error)

    def _next(self) -> Item:
        """The next item; before waiting for one, collects what is in flight."""
        try:
            return self._inbox.next(block=False)
        except queue.Empty:
            while self._flights:
                self._collect()
            return self._inbox.next(block=True)

    def _begin(self, epoch: int) -> None:
        while self._flights:
            self._collect()
        self._engine.reset(epoch)
        self.progress = EpochProgress(epoch)
        self._busy_until = 0.0

    def _in_turn(self, plan: StepPlan) -> bool:
        if plan.seq == 0 and plan.epoch > self.progress.epoch:  # ranks above 0 hear of no claims
            self._begin(plan.epoch)
        now = self.progress
        if plan.epoch != now.epoch:
            return False
        if plan.seq != now.received + 1:
            log.error("plan %d follows plan %d: one was lost; waiting for a new claim", plan.seq, now.received)
            return False
        self.progress = replace(now, received=plan.seq)
        return True

    def _step(self, plan: StepPlan) -> None:
        collected = _Collected()
        began = time.perf_counter()
        gap_us = int((began - self._busy_until) * 1e6) if self._busy_until else 0
        for step in range(max(plan.steps, 1)):
            flight = self._engine.launch(plan, first=step == 0)
            last = step == max(plan.steps, 1) - 1
            self._flights.append(_Launched(plan, flight, began, gap_us, last, collected))
            while len(self._flights) > self._depth:
                self._collect()

    def _collect(self) -> None:
        launched = self._flights.popleft()
        plan, collected = launched.plan, launched.collected
        result = self._engine.collect(launched.flight)
        collected.results.append(result)
        ended = time.perf_counter()
        self._busy_until = ended if self._engine.running() else 0.0
        report = None
        if launched.last:
            step_us = int((ended - launched.began) * 1e6)
            report = step_report(plan, collected.results, step_us, launched.gap_us)
            self.progress = replace(self.progress, reported=plan.seq)
        elif not result.urgent and ended - self._emitted_at < self._stream_interval:
            return
        self._emitted_at = ended
        first = collected.told == 0
        results, collected.told = collected.results[collected.told :], len(collected.results)
        released = plan.releases.tolist() if first else []
        self._emit(StepOutput(plan.epoch, results, released, plan.admissions if first else [], report))

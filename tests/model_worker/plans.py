"""A scheduler as small as can be: enough to drive an engine with plans."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from radixmesh.services.model_worker.engine.engine import Engine, LaunchedStep
from radixmesh.services.model_worker.engine.outputs import Row
from radixmesh.shared.messages import Admission, Finish, SamplingParams, Span, StepPlan, Work


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def columns(*spans: Span) -> dict[str, list[int]]:
    """A plan's columns of its spans."""
    return {
        "span_slots": [span.slot for span in spans],
        "span_starts": [span.start for span in spans],
        "span_counts": [span.count for span in spans],
        "span_sampled": [span.sampled for span in spans],
        "span_drafts": [span.drafts for span in spans],
    }


@dataclass
class Job:
    """One sequence as the test wants it run."""

    prompt: list[int]
    params: SamplingParams
    resumed: list[int] = field(default_factory=list)
    choice: int = 0
    arrives: int = 0
    """Step at which it is admitted."""
    rows: list[Row] = field(default_factory=list)
    failure: str = ""

    @property
    def tokens(self) -> list[int]:
        return [row.token for row in self.rows]

    @property
    def finish(self) -> Finish:
        return self.rows[-1].finish


class PlanDriver:
    """Runs `Job` through an engine: chunks of `chunk` tokens, `depth` launches ahead, `steps` decodes a plan.

    What it takes for a sequence's place is the furthest that it may have come to, as with the real one. A page has the
    same id in all of the model's groups.
    """

    def __init__(self, engine: Engine, *, chunk: int = 64, depth: int = 0, steps: int = 1) -> None:
        self.engine = engine
        self.chunk, self.depth, self.steps = chunk, depth, steps
        self.free = list(range(engine.runner.kv.pools[0].num_pages))[::-1]
        self.passes = 0
        self._slots: dict[int, Job] = {}
        self._pages: dict[int, list[int]] = {}
        self._releases: list[int] = []

    def run(self, jobs: list[Job]) -> None:
        computed: dict[int, int] = {}
        flights: deque[LaunchedStep] = deque()
        waiting, seq, slots, pages = list(jobs), 0, self._slots, self._pages
        while waiting or slots or flights:
            plan: dict[str, list[Any]] = {"releases": self._releases, "admissions": [], "grants": [], "spans": []}
            self._releases = []
            for job in [job for job in waiting if job.arrives <= seq]:
                waiting.remove(job)
                slot = next(s for s in range(len(self.engine.slots)) if s not in slots and s not in plan["releases"])
                slots[slot], computed[slot], pages[slot] = job, 0, []
                plan["admissions"].append(self._admission(slot, job))
            for slot, job in slots.items():
                total = len(job.prompt) + len(job.resumed)
                start = computed[slot]
                count = min(self.chunk, total - start) if start < total else 1
                sampled = start + count >= total
                drafts = self.engine.drafts.most * sampled
                plan["spans"].append(Span(slot, start, count, sampled, drafts))
                computed[slot] += count + (self.steps * (1 + drafts) - 1) * sampled
                need = min(computed[slot], self.engine.max_model_len)
                while len(pages[slot]) * self.engine.tables.page_size < need:
                    pages[slot].append(self.free.pop())
                    plan["grants"].append((slot, len(pages[slot]) - 1, pages[slot][-1]))
            message = self._plan(seq, plan)
            seq += 1
            for step in range(self.steps):
                flights.append(self.engine.launch(message, first=step == 0))
                self.passes += 1
            while len(flights) > (self.depth if slots or waiting else 0):
                self._collect(flights.popleft())

    def _collect(self, flight: LaunchedStep) -> None:
        result = self.engine.collect(flight)
        ended = [slot for slot, _reason in result.failures]
        for slot, reason in result.failures:
            if slot in self._slots:
                self._slots[slot].failure = reason
        for row in result.rows:
            self._slots[row.slot.index].rows.append(row)
            if row.finish is not Finish.RUNNING:
                ended.append(row.slot.index)
        for slot in ended:
            if self._slots.pop(slot, None) is not None:
                self.free += self._pages.pop(slot)
                self._releases.append(slot)

    def _admission(self, slot: int, job: Job) -> Admission:
        return Admission(
            slot=slot,
            request_id="r",
            choice=job.choice,
            attempt=0,
            detokenizer_id="d",
            prompt_ids=i32(*job.prompt, *job.resumed),
            resumed=len(job.resumed),
            work=Work(params=job.params),
        )

    def _plan(self, seq: int, plan: dict[str, list[Any]]) -> StepPlan:
        grants, groups = plan["grants"], len(self.engine.runner.kv.pools)
        return StepPlan(
            epoch=1,
            seq=seq,
            releases=i32(*plan["releases"]),
            admissions=plan["admissions"],
            grant_slots=i32(*(slot for slot, _at, _page in grants for _ in range(groups))),
            grant_groups=np.tile(np.arange(groups, dtype=np.int32), len(grants)),
            grant_starts=i32(*(at for _slot, at, _page in grants for _ in range(groups))),
            grant_counts=np.ones(len(grants) * groups, np.int32),
            grant_pages=i32(*(page for _slot, _at, page in grants for _ in range(groups))),
            **columns(*plan["spans"]),
            steps=self.steps,
        )

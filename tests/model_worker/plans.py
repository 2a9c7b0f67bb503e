"""A scheduler as small as can be: enough to drive an engine with plans."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from radixmesh.services.model_worker.engine import Engine
from radixmesh.services.model_worker.outputs import Row
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
    """Runs `Job` through an engine: chunks of `chunk` tokens, `depth` launches ahead, `steps` decodes a plan."""

    def __init__(self, engine: Engine, *, chunk: int = 64, depth: int = 0, steps: int = 1) -> None:
        self.engine = engine
        self.chunk, self.depth, self.steps = chunk, depth, steps
        self.free = list(range(engine.runner.kv.num_pages))[::-1]

    def run(self, jobs: list[Job]) -> None:
        slots: dict[int, Job] = {}
        computed: dict[int, int] = {}
        pages: dict[int, list[int]] = {}
        flights: deque = deque()
        waiting, seq, releases = list(jobs), 0, []
        while waiting or slots or flights:
            plan = {"releases": releases, "admissions": [], "grants": [], "spans": []}
            releases = []
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
                plan["spans"].append(Span(slot, start, count, sampled, drafts=0))
                computed[slot] += count + (self.steps - 1) * sampled
                need = min(computed[slot], self.engine.max_model_len)
                while len(pages[slot]) * self.engine.tables.page_size < need:
                    pages[slot].append(self.free.pop())
                    plan["grants"].append((slot, pages[slot][-1]))
            message = self._plan(seq, plan)
            seq += 1
            for step in range(self.steps):
                flights.append(self.engine.launch(message, first=step == 0))
            while len(flights) > (self.depth if slots or waiting else 0):
                result = self.engine.collect(flights.popleft())
                ended = [slot for slot, _reason in result.failures]
                for slot, reason in result.failures:
                    if slot in slots:
                        slots[slot].failure = reason
                for row in result.rows:
                    slots[row.slot.index].rows.append(row)
                    if row.finish is not Finish.RUNNING:
                        ended.append(row.slot.index)
                for slot in ended:
                    if slots.pop(slot, None) is not None:
                        self.free += pages.pop(slot)
                        releases.append(slot)

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

    def _plan(self, seq: int, plan: dict) -> StepPlan:
        slots = [slot for slot, _page in plan["grants"]]
        return StepPlan(
            epoch=1,
            seq=seq,
            releases=i32(*plan["releases"]),
            admissions=plan["admissions"],
            grant_slots=i32(*slots),
            grant_counts=np.ones(len(slots), np.int32),
            grant_pages=i32(*(page for _slot, page in plan["grants"])),
            **columns(*plan["spans"]),
            steps=self.steps,
        )

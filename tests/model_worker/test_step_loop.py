"""What the worker's thread hands out, and when: an engine that computes nothing, and a clock of the test's own."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.services.model_worker.engine.outputs import Row, StepResult, token_batches
from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.services.model_worker.engine.step_loop import EpochProgress, StepLoop, StepOutput
from radixmesh.services.model_worker.group.inbox import Inbox
from radixmesh.shared.messages import Admission, Finish, SamplingParams, StepPlan, Work

STEP = 0.010
"""Seconds that a step takes on the test's clock."""


def slot(index: int) -> Slot:
    admission = Admission(
        slot=index,
        request_id=f"r{index}",
        choice=0,
        attempt=0,
        detokenizer_id="d",
        prompt_ids=np.arange(3),
        work=Work(params=SamplingParams(logprobs=1 if index == 1 else None)),
    )
    return Slot(index, admission, 512)


class Engine:
    """Each step gives every sequence a token; sequence i ends after `lengths[i]` of them."""

    def __init__(self, lengths: list[int]) -> None:
        self.slots = [slot(index) for index in range(len(lengths))]
        self.lengths = lengths
        self.made = [0] * len(lengths)
        self.now = 100.0

    def launch(self, plan: StepPlan, *, first: bool) -> None:
        self.now += STEP

    def collect(self, _flight: None) -> StepResult:
        rows = []
        for held in self.slots:
            index = self.made[held.index]
            if index < self.lengths[held.index]:
                self.made[held.index] += 1
                last = self.made[held.index] == self.lengths[held.index]
                finish = Finish.LENGTH if last else Finish.RUNNING
                top = [(7, -0.5)] if held.index == 1 else []
                rows.append(Row(held, index, 10 * held.index + index, finish, logprob=-float(index), top=top))
        return StepResult(rows)

    def reset(self, epoch: int) -> None:
        pass

    def running(self) -> bool:
        return self.made != self.lengths


@contextmanager
def loop_of(
    engine: Engine, interval: float, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], list[StepOutput]]]:
    """Gives a function that runs one plan of so many steps and returns what was handed out."""
    monkeypatch.setattr(time, "perf_counter", lambda: engine.now)
    outputs: queue.SimpleQueue[StepOutput] = queue.SimpleQueue()
    errors: list[Exception] = []
    loop = StepLoop(engine, Inbox(), outputs.put, errors.append, depth=0, stream_interval=interval)  # type: ignore[arg-type]
    seqs = iter(range(1000))

    def run(steps: int) -> list[StepOutput]:
        loop.submit(StepPlan(epoch=1, seq=next(seqs), steps=steps))
        got = [outputs.get(timeout=20)]
        while got[-1].report is None:
            got.append(outputs.get(timeout=20))
        return got

    loop.start()
    yield run
    loop.stop()
    assert errors == []


def sizes(outputs: list[StepOutput]) -> list[int]:
    """How many steps each output covers."""
    return [len(output.results) for output in outputs]


def test_tokens_of_a_plan_travel_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with loop_of(Engine([100]), 1.0, monkeypatch) as run:
        assert sizes(run(4)) == [1, 3]  # nobody waits for a first token
        assert sizes(run(4)) == [4]
        assert sizes(run(1)) == [1]


def test_no_longer_than_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    with loop_of(Engine([100]), 2.5 * STEP, monkeypatch) as run:
        run(1)
        assert sizes(run(8)) == [3, 3, 2]


def test_an_end_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with loop_of(Engine([100, 3]), 1.0, monkeypatch) as run:
        run(1)
        outputs = run(6)
        assert sizes(outputs) == [2, 4]
        assert outputs[0].results[-1].rows[1].finish is Finish.LENGTH


def test_a_new_claim_during_a_step_does_not_lend_its_epoch_to_the_old_numbers() -> None:
    """Whenever it is read, `progress` is of one epoch: here before, in and behind a step that outlasts two claims."""

    class Held(Engine):
        began, go = threading.Event(), threading.Event()

        def launch(self, plan: StepPlan, *, first: bool) -> None:
            if plan.seq == 2:
                self.began.set()
                assert self.go.wait(20)

    engine, outputs = Held([100]), queue.SimpleQueue[StepOutput]()
    loop = StepLoop(engine, Inbox(), outputs.put, pytest.fail, depth=0)  # type: ignore[arg-type]
    loop.start()
    loop.reset(7)
    for seq in range(3):
        loop.submit(StepPlan(epoch=7, seq=seq))
    assert engine.began.wait(20)
    assert loop.progress == EpochProgress(7, received=2, reported=1)
    for epoch in (8, 9):
        loop.reset(epoch)
    loop.submit(StepPlan(epoch=8, seq=0))
    loop.submit(StepPlan(epoch=9, seq=0))
    assert loop.progress == EpochProgress(7, received=2, reported=1)
    engine.go.set()
    reports = [(report.epoch, report.seq) for _ in range(4) if (report := outputs.get(timeout=20).report)]
    assert reports == [(7, 0), (7, 1), (7, 2), (9, 0)]
    loop.reset(-1)
    loop.stop()
    assert loop.progress == EpochProgress()


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    steps=st.lists(st.integers(1, 5), min_size=12, max_size=12),
    interval=st.sampled_from([0.0, 1.5 * STEP, 3.5 * STEP, 9.0]),
)
def test_every_token_once_and_in_order(lengths: list[int], steps: list[int], interval: float) -> None:
    """However they travel, each choice's tokens, ends and log-probabilities are those that the engine gave."""
    told: dict[str, list[tuple[int, int]]] = {}
    ends: dict[str, list[Finish]] = {}
    with pytest.MonkeyPatch.context() as patch, loop_of(Engine(lengths), interval, patch) as run:
        for count in steps:
            outputs = run(count)
            assert sum(sizes(outputs)) == count
            assert [output.report is None for output in outputs] == [True] * (len(outputs) - 1) + [False]
            for output in outputs:
                for name, batch in token_batches(output.results, "r", 1, {}):
                    assert name == "d"
                    at = 0
                    values = batch.logprobs.tolist()
                    for row, request in enumerate(batch.request_ids):
                        span = range(at, at := at + int(batch.counts[row]))
                        first = int(batch.first_index[row])
                        run_of = [(first + i, int(batch.tokens[j])) for i, j in enumerate(span)]
                        told.setdefault(request, []).extend(run_of)
                        ends.setdefault(request, []).append(Finish(int(batch.finish[row])))
                        if request == "r1":
                            assert [values[j] for j in span] == [-float(first + i) for i in range(len(span))]
                    assert at == len(batch.tokens)
    for index, length in enumerate(lengths):
        made = told[f"r{index}"]
        assert made == [(i, 10 * index + i) for i in range(min(length, sum(steps)))]
        assert all(before is Finish.RUNNING for before, _ in pairwise(ends[f"r{index}"]))
        assert (ends[f"r{index}"][-1] is Finish.LENGTH) is (length <= sum(steps))

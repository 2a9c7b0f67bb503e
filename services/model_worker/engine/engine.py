"""The engine: plans in, tokens out.

Two calls make a step, so that an accelerator never waits for Python:

    launch(plan)      applies the plan and queues the forward pass and the sampling on the device; returns at once
    collect(flight)   waits for the tokens, appends those that are accepted, finds the ends

On an accelerator step n + 1 is launched before step n is collected: its decode inputs are gathered on the device from
`_last_token`, which sampling writes. A sequence that turns out to have ended in step n runs in n + 1 for nothing, and
`collect` drops it. With drafts nothing is launched ahead: until a sequence's last pass is collected, nobody can guess
what follows, and if that pass had drafts, it is not known where to go on. On the CPU, launch computes at once.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from radixmesh.services.model_worker.engine.drafts import DraftSource, NoDrafts
from radixmesh.services.model_worker.engine.ends import finish_of
from radixmesh.services.model_worker.engine.outputs import Row, StepResult
from radixmesh.services.model_worker.engine.preparation import PreparedResults
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.engine.slots import BlockTables, Slot
from radixmesh.services.model_worker.engine.spans import Stretch, step_input
from radixmesh.services.model_worker.errors import is_out_of_memory
from radixmesh.services.model_worker.sampling.sampler import Logprobs, SampleOutput
from radixmesh.shared.messages import Admission, Finish, Span, StepPlan

log = logging.getLogger(__name__)


@dataclass(slots=True)
class LaunchedStep:
    """A step that was launched and not yet collected."""

    sampling: list[Stretch] = field(default_factory=list)
    """What wants tokens; `Stretch.rows` of `sampled` belong to each."""
    sampled: SampleOutput | None = None
    failures: list[tuple[int, str]] = field(default_factory=list)


class Engine:
    """Slots, block tables and the model runner of one rank."""

    def __init__(
        self,
        runner: ModelRunner,
        *,
        max_slots: int,
        max_model_len: int,
        page_size: int,
        eos_token_ids: Iterable[int],
        drafts: DraftSource | None = None,
        prepared: PreparedResults | None = None,
    ) -> None:
        self.runner = runner
        self.drafts = drafts or NoDrafts()
        self.prepared = prepared or PreparedResults()
        self.max_model_len = max_model_len
        self.eos_token_ids = frozenset(eos_token_ids)
        self.slots: list[Slot | None] = [None] * max_slots
        self.tables = BlockTables(max_slots, page_size, max_model_len, len(runner.kv.pools))
        self._last_token = torch.zeros(max_slots, dtype=torch.int64, device=runner.device)

    def reset(self, epoch: int) -> None:
        """Forgets every sequence, and what was prepared for those of epochs below `epoch`."""
        for index in range(len(self.slots)):
            self._vacate(index)
        self.prepared.forget_before(epoch)

    def running(self) -> bool:
        """Whether any sequence is admitted and not at its end."""
        return any(slot is not None and not slot.ended for slot in self.slots)

    # -- launch --

    def apply(self, plan: StepPlan) -> list[tuple[int, str]]:
        """Releases, admissions, grants. Returns the admissions that failed: slot and one sentence."""
        for index in plan.releases.tolist():
            self._vacate(index)
        failures = [failure for admission in plan.admissions if (failure := self._admit(admission))]
        self.tables.grant(plan)
        return failures

    def _vacate(self, index: int) -> None:
        slot = self.slots[index]
        if slot is not None:
            slot.ended = True  # a step that is still in flight may hold it
            self.drafts.release(slot)
        self.slots[index] = None
        self.tables.clear(index)

    def _admit(self, admission: Admission) -> tuple[int, str] | None:
        self._vacate(admission.slot)
        try:
            slot = Slot(admission.slot, admission, self.max_model_len)
            prompt, output = slot.tokens[: slot.prompt_len], slot.output
            slot.prepared = self.prepared.of(slot.work)
            slot.sampling = self.runner.sampling_row(slot.work.params, slot.choice, prompt, output, self.eos_token_ids)
            self.slots[admission.slot] = slot
        except ValueError as error:
            return admission.slot, str(error)
        except (MemoryError, RuntimeError) as error:  # the latter is torch's, of a CPU or a device without memory
            if self._is_over():
                raise
            log.error("a sequence of %d tokens could not be admitted", len(admission.prompt_ids), exc_info=error)
            return admission.slot, f"the sequence could not be admitted: {_reason(error)}"
        return None

    def launch(self, plan: StepPlan, *, first: bool = True) -> LaunchedStep:
        """Queues one forward pass of `plan`: over its spans if it is the plan's `first`, else over what was sampled."""
        flight = LaunchedStep(failures=self.apply(plan) if first else [])
        stretches = self._stretches(plan, first=first)
        if stretches:
            try:
                self._run(flight, stretches)
            except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as error:
                self._fail(flight, [stretch.slot for stretch in stretches], error)
        return flight

    def _run(self, flight: LaunchedStep, stretches: list[Stretch]) -> None:
        """Queues the forward pass over `stretches` and their drafts, and the sampling."""
        self._propose(stretches)
        rope = self.runner.length_dependent_rope
        batch, positions, slots = step_input(stretches, self.tables, self._last_token, with_rope_length=rope)
        for stretch in stretches:
            stretch.slot.launched = stretch.stop
            stretch.slot.undecided = bool(stretch.drafts)
        flight.sampling = [stretch for stretch in stretches if stretch.sampled]
        rows = [row for stretch in flight.sampling for row in stretch.sampling()]
        flight.sampled = self.runner.run(batch, rows, positions, slots, self._last_token)

    def _propose(self, stretches: list[Stretch]) -> None:
        wanting = [stretch for stretch in stretches if stretch.room > 0]
        if wanting:
            proposed = self.drafts.propose([(stretch.slot, stretch.room) for stretch in wanting])
            for stretch, drafts in zip(wanting, proposed, strict=True):
                stretch.drafts = drafts[: stretch.room]

    def _fail(self, flight: LaunchedStep, slots: list[Slot], error: Exception) -> None:
        """Ends a step's sequences, and not the worker, unless nothing will work after this."""
        if self._is_over():
            raise error
        log.error("a forward pass over %d sequences failed", len(slots), exc_info=error)
        for slot in slots:
            slot.ended = True
        flight.failures += [(slot.index, f"the forward pass failed: {_reason(error)}") for slot in slots]
        flight.sampling = []

    def _is_over(self) -> bool:
        """After an error: whether other ranks may be out of step with this one now, or the device works no more."""
        return self.runner.model.mesh.world.size > 1 or not self.runner.device_works()

    def _stretches(self, plan: StepPlan, *, first: bool) -> list[Stretch]:
        """The plan's spans where their sequences are, but for those that have ended, are bound to, or are undecided."""
        found = []
        for span in plan.spans():
            slot = self.slots[span.slot]
            if slot is None or slot.ended or slot.undecided or not (first or span.sampled):
                continue
            in_prompt = first and span.start < slot.admitted
            stretch = self._chunk(slot, span) if in_prompt else self._decode(slot)
            if stretch is not None:
                if span.drafts:
                    stretch.room = self._draft_room(stretch, span.drafts)
                found.append(stretch)
        return found

    def _chunk(self, slot: Slot, span: Span) -> Stretch | None:
        stretch = Stretch(slot, span.start, span.start + span.count, bool(span.sampled))
        if span.start != slot.launched or stretch.end > slot.admitted:
            log.error("chunk %d+%d of slot %d does not follow %d", span.start, span.count, slot.index, slot.launched)
            return None
        if stretch.sampled != (stretch.end == slot.admitted):
            log.error("slot %d is to be sampled at %d and not at %d", slot.index, slot.admitted, stretch.end)
            return None
        return stretch

    def _decode(self, slot: Slot) -> Stretch | None:
        """The token behind what was launched."""
        position = slot.launched
        if position < slot.admitted or position + 1 >= slot.prompt_len + slot.max_output:
            return None
        if position >= self.tables.room(slot.index):
            log.error("slot %d has no page for position %d", slot.index, position)
            return None
        return Stretch(slot, position, position + 1, sampled=True)

    def _draft_room(self, stretch: Stretch, granted: int) -> int:
        """Drafts that may stand behind it: for which there are pages, and none that could not be output.

        None either behind a token that is still on the device, as no one can tell what follows.
        """
        slot = stretch.slot
        if not stretch.sampled or stretch.end != slot.accepted:
            return 0
        left = slot.max_output - slot.output_len - 1
        return min(granted, self.drafts.most, left, self.tables.room(slot.index) - stretch.end)

    # -- collect --

    def collect(self, flight: LaunchedStep) -> StepResult:
        """Waits for a step's tokens. Rows of sequences that had ended, or were released, by then are dropped."""
        result = StepResult(failures=list(flight.failures))
        if flight.sampled is None or not flight.sampling:
            return result
        chosen, row = _Chosen.of(flight.sampled), 0
        for stretch in flight.sampling:
            if not stretch.slot.ended:
                self._accept(stretch, chosen, row, result)
            row += stretch.rows
        return result

    def _accept(self, stretch: Stretch, chosen: "_Chosen", first: int, result: StepResult) -> None:
        """Takes the token behind the stretch, and the ones behind its drafts as long as these are what was chosen.

        Args:
            first: the first of its rows in `chosen`.
        """
        slot, known = stretch.slot, stretch.slot.accepted
        for row, draft in enumerate((*stretch.drafts, None), first):
            if chosen.failed[row]:
                slot.ended = True
                result.failures.append((slot.index, "the model's logits are not finite"))
                break
            token = chosen.tokens[row]
            result.rows.append(self._advance(slot, token, *chosen.logprobs.get(row, _NO_LOGPROBS)))
            if slot.ended or token != draft:
                break
        if stretch.drafts:
            slot.settle()
            more = slot.tokens[known + 1 : slot.accepted]  # the first has been observed where it was sampled
            slot.sampling.observe(torch.from_numpy(more.astype(np.int64)).to(self.runner.device))

    def _advance(self, slot: Slot, token: int, logprob: float, top: list[tuple[int, float]]) -> Row:
        slot.append(token)
        finish, stop_token = finish_of(slot, token, self.eos_token_ids)
        slot.ended = finish is not Finish.RUNNING
        return Row(slot, slot.output_len - 1, token, finish, stop_token, logprob, top)


class _Chosen(NamedTuple):
    """A `SampleOutput` on the host; by row."""

    tokens: list[int]
    failed: list[bool]
    logprobs: dict[int, tuple[float, list[tuple[int, float]]]]
    """Of rows that asked."""

    @classmethod
    def of(cls, sampled: SampleOutput) -> "_Chosen":
        return cls(sampled.tokens.tolist(), sampled.failed.tolist(), _logprob_rows(sampled.logprobs))


def _reason(error: Exception) -> str:
    """What a client is told."""
    return "out of memory" if is_out_of_memory(error) else type(error).__name__


_NO_LOGPROBS: tuple[float, list[tuple[int, float]]] = (float("nan"), [])


def _logprob_rows(logprobs: Logprobs | None) -> dict[int, tuple[float, list[tuple[int, float]]]]:
    """By row: the chosen token's log-probability, and ids and log-probabilities of the likeliest."""
    if logprobs is None:
        return {}
    chosen, ids, values = logprobs.chosen.tolist(), logprobs.top_ids.tolist(), logprobs.top.tolist()
    return {
        row: (chosen[i], list(zip(ids[i][:count], values[i][:count], strict=True)))
        for i, (row, count) in enumerate(zip(logprobs.rows.tolist(), logprobs.counts.tolist(), strict=True))
    }

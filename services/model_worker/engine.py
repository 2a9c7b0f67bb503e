"""The engine: plans in, tokens out.

Two calls make a step, so that an accelerator never waits for Python:

    launch(plan)      applies the plan and queues the forward pass and the sampling on the device; returns at once
    collect(flight)   waits for the tokens, appends them, finds the ends

On an accelerator step n + 1 is launched before step n is collected: its decode inputs are gathered on the device from
`_last_token`, which sampling writes. A sequence that turns out to have ended in step n runs in n + 1 for nothing, and
`collect` drops it. On the CPU, launch computes at once.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from radixmesh.services.model_worker.batch import ForwardBatch
from radixmesh.services.model_worker.ends import finish_of
from radixmesh.services.model_worker.errors import is_out_of_memory
from radixmesh.services.model_worker.outputs import Row, StepResult
from radixmesh.services.model_worker.runner import ModelRunner
from radixmesh.services.model_worker.sampler import Logprobs, SampleOutput
from radixmesh.services.model_worker.slots import BlockTables, Slot
from radixmesh.shared.messages import Admission, Finish, StepPlan

log = logging.getLogger(__name__)


@dataclass(slots=True)
class InFlight:
    """A step that was launched and not yet collected."""

    sampling: list[Slot]
    """Slots that get a token, one per row of `sampled`."""
    sampled: SampleOutput | None = None
    failures: list[tuple[int, str]] = field(default_factory=list)


class Engine:
    """Slots, block tables and the model runner of one rank."""

    def __init__(
        self, runner: ModelRunner, *, max_slots: int, max_model_len: int, page_size: int, eos_token_ids: Iterable[int]
    ) -> None:
        self.runner = runner
        self.max_model_len = max_model_len
        self.page_size = page_size
        self.eos_token_ids = frozenset(eos_token_ids)
        self.slots: list[Slot | None] = [None] * max_slots
        self.tables = BlockTables(max_slots, -(-max_model_len // page_size))
        self._last_token = torch.zeros(max_slots, dtype=torch.int64, device=runner.device)

    def reset(self) -> None:
        """Forgets every sequence."""
        for index in range(len(self.slots)):
            self._vacate(index)

    def running(self) -> bool:
        """Whether any sequence is admitted and not at its end."""
        return any(slot is not None and not slot.ended for slot in self.slots)

    # -- launch --

    def apply(self, plan: StepPlan) -> list[tuple[int, str]]:
        """Releases, admissions, grants. Returns the admissions that failed: slot and one sentence."""
        for index in plan.releases.tolist():
            self._vacate(index)
        failures = [failure for admission in plan.admissions if (failure := self._admit(admission))]
        self.tables.grant(plan.grant_slots, plan.grant_counts, plan.grant_pages)
        return failures

    def _vacate(self, index: int) -> None:
        slot = self.slots[index]
        if slot is not None:
            slot.ended = True  # a step that is still in flight may hold it
        self.slots[index] = None
        self.tables.clear(index)

    def _admit(self, admission: Admission) -> tuple[int, str] | None:
        self._vacate(admission.slot)
        try:
            slot = Slot(admission.slot, admission, self.max_model_len)
            prompt, output = slot.tokens[: slot.prompt_len], slot.output
            slot.sampling = self.runner.sampling_row(slot.params, slot.choice, prompt, output, self.eos_token_ids)
            self.slots[admission.slot] = slot
        except ValueError as error:
            return admission.slot, str(error)
        except (MemoryError, RuntimeError) as error:  # the latter is torch's, of a CPU or a device without memory
            if self._is_over():
                raise
            log.error("a sequence of %d tokens could not be admitted", len(admission.prompt_ids), exc_info=error)
            return admission.slot, f"the sequence could not be admitted: {_reason(error)}"
        return None

    def launch(self, plan: StepPlan, *, first: bool = True) -> InFlight:
        """Queues one step of `plan`: prompt chunks too if it is the plan's `first`, else decodes alone."""
        failures = self.apply(plan) if first else []
        parts = self._chunks(plan) if first else []
        parts += self._decodes(plan)
        flight = InFlight([slot for slot, start, count in parts if start + count >= slot.length], None, failures)
        if not parts:
            return flight
        try:
            self._run(flight, parts)
        except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as error:
            self._fail(flight, [slot for slot, _start, _count in parts], error)
        return flight

    def _run(self, flight: InFlight, parts: list[tuple[Slot, int, int]]) -> None:
        """Queues the forward pass over `parts`, and the sampling."""
        batch = self._batch(parts)
        for slot, _start, count in parts:
            slot.computed += count
        slots = np.array([slot.index for slot in flight.sampling], np.int64)
        positions = np.array([slot.computed - slot.prompt_len for slot in flight.sampling], np.int64)
        rows = [slot.sampling for slot in flight.sampling]
        flight.sampled = self.runner.run(batch, rows, positions, slots, self._last_token)

    def _fail(self, flight: InFlight, slots: list[Slot], error: Exception) -> None:
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
        return self.runner.model.group.size > 1 or not self.runner.device_works()

    def _chunks(self, plan: StepPlan) -> list[tuple[Slot, int, int]]:
        """(slot, start, tokens) of the plan's prompt chunks."""
        columns = zip(
            plan.prefill_slots.tolist(), plan.prefill_starts.tolist(), plan.prefill_counts.tolist(), strict=True
        )
        parts = []
        for index, start, count in columns:
            slot = self.slots[index]
            if slot is None or slot.ended:
                continue
            if start != slot.computed or start + count > slot.length:
                log.error("chunk %d+%d of slot %d does not follow %d", start, count, index, slot.computed)
                continue
            parts.append((slot, start, count))
        return parts

    def _decodes(self, plan: StepPlan) -> list[tuple[Slot, int, int]]:
        """(slot, position, 1) of the slots that go on; those at their end, known or bound to come, are left out."""
        parts = []
        for index in plan.decode_slots.tolist():
            slot = self.slots[index]
            if slot is None or slot.ended or slot.computed < slot.length - 1:
                continue
            if slot.computed + 1 >= slot.prompt_len + slot.max_output:
                continue
            if slot.computed >= self.tables.counts[index] * self.page_size:
                log.error("slot %d has no page for position %d", index, slot.computed)
                continue
            parts.append((slot, slot.computed, 1))
        return parts

    def _batch(self, parts: list[tuple[Slot, int, int]]) -> ForwardBatch:
        counts = np.array([count for _slot, _start, count in parts], np.int64)
        starts = np.array([start for _slot, start, _count in parts], np.int64)
        query_start = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(counts, out=query_start[1:])
        indices = np.array([slot.index for slot, _start, _count in parts], np.int64)
        context = starts + counts
        sequence = np.repeat(np.arange(len(parts)), counts)
        positions = np.arange(query_start[-1]) - np.repeat(query_start[:-1] - starts, counts)
        width = -(-int(context.max()) // self.page_size)
        tables = self.tables.pages[indices, :width]
        locations = tables[sequence, positions // self.page_size].astype(np.int64) * self.page_size
        locations += positions % self.page_size
        ends = np.array([start + count >= slot.length for slot, start, count in parts])
        batch = ForwardBatch.from_numpy(
            token_ids=self._token_ids(parts),
            positions=positions,
            kv_locations=locations,
            query_start=query_start,
            context_len=context,
            block_tables=tables,
            logit_rows=query_start[1:][ends] - 1,
            device=self.runner.device,
            rope_length=self._rope_length(parts, counts),
        )
        self._fill_from_device(batch, parts, query_start)
        return batch

    def _token_ids(self, parts: list[tuple[Slot, int, int]]) -> NDArray[np.int64]:
        """int64 [T]; 0 where the token is still on the device."""
        return np.concatenate(
            [
                slot.tokens[start : start + count].astype(np.int64) if start < slot.length else np.zeros(1, np.int64)
                for slot, start, count in parts
            ]
        )

    def _fill_from_device(
        self, batch: ForwardBatch, parts: list[tuple[Slot, int, int]], query_start: NDArray[np.int64]
    ) -> None:
        late = [i for i, (slot, start, _count) in enumerate(parts) if start >= slot.length]
        if late:
            device = self.runner.device
            rows = torch.from_numpy(query_start[late]).to(device)
            slots = torch.tensor([parts[i][0].index for i in late], device=device)
            batch.token_ids[rows] = self._last_token[slots]

    def _rope_length(
        self, parts: list[tuple[Slot, int, int]], counts: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        if not self.runner.length_dependent_rope:
            return None
        return np.repeat(np.array([slot.prompt_len for slot, _start, _count in parts], np.int64), counts)

    # -- collect --

    def collect(self, flight: InFlight) -> StepResult:
        """Waits for a step's tokens. Rows of sequences that had ended, or were released, by then are dropped."""
        result = StepResult(failures=list(flight.failures))
        if flight.sampled is None or not flight.sampling:
            return result
        tokens = flight.sampled.tokens.tolist()
        failed = flight.sampled.failed.tolist()
        logprobs = _logprob_rows(flight.sampled.logprobs)
        for i, slot in enumerate(flight.sampling):
            if slot.ended:
                continue
            if failed[i]:
                slot.ended = True
                result.failures.append((slot.index, "the model's logits are not finite"))
                continue
            result.rows.append(self._advance(slot, tokens[i], *logprobs.get(i, _NO_LOGPROBS)))
        return result

    def _advance(self, slot: Slot, token: int, logprob: float, top: list[tuple[int, float]]) -> Row:
        slot.append(token)
        finish, stop_token = finish_of(slot, token, self.eos_token_ids)
        slot.ended = finish is not Finish.RUNNING
        return Row(slot, slot.output_len - 1, token, finish, stop_token, logprob, top)


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

"""What a report changes."""

import numpy as np

from radixmesh.services.scheduler.draft import InFlight
from radixmesh.services.scheduler.sequence import Phase, Sequence
from radixmesh.services.scheduler.state import ReplicaState
from radixmesh.shared.errors import ErrorCode, RadixMeshError
from radixmesh.shared.messages import Finish, StepReport, Task

_RUNNING = int(Finish.RUNNING)


class WorkerOutOfStep(RadixMeshError):
    """Plans and reports no longer match: something was lost or is wrong; the epoch is over."""


def check_report(report: StepReport, slots: int) -> None:
    """Raises WorkerOutOfStep if the report's columns do not fit each other or the slots there are."""
    rows = report.slots.size
    if report.counts.size != rows or report.finish.size != rows or len(report.failures) != report.failed_slots.size:
        raise WorkerOutOfStep(f"report {report.seq} has columns of different lengths")
    if rows and (report.counts.min() < 0 or report.counts.sum() != report.tokens.size):
        raise WorkerOutOfStep(f"report {report.seq} has {report.tokens.size} tokens, not as its counts say")
    for column in (report.slots, report.failed_slots):
        if column.size and (column.min() < 0 or column.max() >= slots):
            raise WorkerOutOfStep(f"report {report.seq} names a slot that does not exist")


def apply_report(state: ReplicaState, plan: InFlight, report: StepReport, now: float) -> None:
    """Takes in the report of `plan`.

    Rows belong to whoever had the slot in that plan. A sequence that was retracted since still gets its tokens, as
    they are on their way to the client; one that was cancelled does not.
    """
    state.reported_seq = report.seq
    failures = dict(zip(report.failed_slots.tolist(), report.failures, strict=True))
    for slot, text in failures.items():
        seq = plan.seqs[slot]
        if seq is not None and seq.phase is not Phase.ENDED:
            state.fail(seq, now, ErrorCode.INTERNAL, f"the model worker could not go on: {text}")
    _chunks_done(state, plan, now)
    if plan.decode_slots.size:
        _correct_lengths(state, plan, report)
    _rows(state, plan, report, now)
    counters = state.counters
    counters.steps += 1
    counters.step_us += report.step_us
    counters.gap_us += report.gap_us
    counters.output_tokens += report.tokens.size


def _chunks_done(state: ReplicaState, plan: InFlight, now: float) -> None:
    for chunk in plan.chunks:
        seq = chunk.seq
        if seq.slot != chunk.slot or seq.admissions != chunk.admission:
            continue  # it has left the slot since
        seq.computed = chunk.end
        state.kv.store(seq)
        state.warming.advance(seq)
        if seq.task is not Task.GENERATE and chunk.end == len(seq.prompt):
            state.end(seq, now, "done")


def _correct_lengths(state: ReplicaState, plan: InFlight, report: StepReport) -> None:
    """Slots that advanced less than they might have go on from where they are."""
    got = np.zeros(state.slots.total, np.int64)
    got[report.slots] = report.counts
    less = plan.advance - got[plan.decode_slots]
    for i in np.flatnonzero(less).tolist():
        slot = int(plan.decode_slots[i])
        seq = state.slots.seqs[slot]
        if seq is not None and seq is plan.seqs[slot] and seq.phase is Phase.DECODE:
            state.slots.kv_len[slot] -= int(less[i])


def _rows(state: ReplicaState, plan: InFlight, report: StepReport, now: float) -> None:
    tokens = report.tokens.tolist()
    start = 0
    for slot, count, finish in zip(
        report.slots.tolist(), report.counts.tolist(), report.finish.tolist(), strict=True
    ):
        seq = plan.seqs[slot]
        if seq is None:
            raise WorkerOutOfStep(f"report {report.seq} has tokens for slot {slot}, which was free")
        if seq.phase is not Phase.ENDED:
            if count == 1:
                seq.output.append(tokens[start])
            else:
                seq.output += tokens[start : start + count]
            if finish != _RUNNING:
                state.end(seq, now, "done")
            elif seq.length >= seq.limit:
                _overrun(state, seq, now)
            elif seq.phase is Phase.WAITING:
                seq.fold()
        start += count


def _overrun(state: ReplicaState, seq: Sequence, now: float) -> None:
    """The worker ends sequences at their limit; if it did not, nothing more would ever be planned for this one."""
    text = f"it came to its limit of {seq.limit} tokens and did not end"
    state.fail(seq, now, ErrorCode.INTERNAL, f"the model worker could not go on: {text}")

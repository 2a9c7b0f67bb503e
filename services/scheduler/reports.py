"""What a report changes."""

import numpy as np

from radixmesh.services.scheduler.draft import InFlight
from radixmesh.services.scheduler.sequence import Phase
from radixmesh.services.scheduler.state import ReplicaState
from radixmesh.shared.errors import ErrorCode, RadixMeshError
from radixmesh.shared.messages import Finish, StepReport

_RUNNING = int(Finish.RUNNING)


class WorkerOutOfStep(RadixMeshError):
    """Plans and reports no longer match: something was lost or is wrong; the epoch is over."""


def check_report(report: StepReport, plan: InFlight) -> None:
    """Raises WorkerOutOfStep if the report's columns do not fit each other or the plan."""
    slots, counts = report.slots.tolist(), report.counts.tolist()
    if len(counts) != len(slots) or report.finish.size != len(slots):
        raise WorkerOutOfStep(f"report {report.seq} has columns of different lengths")
    if counts and (min(counts) < 0 or sum(counts) != report.tokens.size):
        raise WorkerOutOfStep(f"report {report.seq} has {report.tokens.size} tokens, not as its counts say")
    failed = report.failed_slots.tolist()
    if len(failed) != len(report.failures):
        raise WorkerOutOfStep(f"report {report.seq} has {len(report.failures)} reasons for {len(failed)} failures")
    total = len(plan.seqs)
    for slot in slots + failed:
        if not 0 <= slot < total or plan.seqs[slot] is None:
            raise WorkerOutOfStep(f"report {report.seq} tells of slot {slot}, which was free")


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
    _chunks_done(state, plan)
    if plan.steps > 1 or report.slots.size < plan.rows:
        _correct_lengths(state, plan, report)
    _rows(state, plan, report, now)
    counters = state.counters
    counters.steps += max(plan.steps, 1)
    counters.step_us += report.step_us
    counters.gap_us += report.gap_us
    counters.output_tokens += report.tokens.size
    if not plan.chunks and report.slots.size:
        state.time_decodes(plan.steps, report.step_us)


def _chunks_done(state: ReplicaState, plan: InFlight) -> None:
    for chunk in plan.chunks:
        seq = chunk.seq
        if seq.slot != chunk.slot:
            continue  # it has left the slot, and gets no other before all plans of its time there are reported
        seq.computed = chunk.end
        state.kv.store(seq)
        state.warming.advance(seq)


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
    slots, tokens, seqs = report.slots.tolist(), report.tokens.tolist(), plan.seqs
    if report.counts.tolist() == [1] * len(slots):
        for slot, token in zip(slots, tokens, strict=True):
            seqs[slot].output.append(token)
    else:
        start = 0
        for slot, count in zip(slots, report.counts.tolist(), strict=True):
            seqs[slot].output += tokens[start : start + count]
            start += count
    for slot, finish in zip(slots, report.finish.tolist(), strict=True):
        seq = seqs[slot]
        if seq is None:
            continue
        if finish != _RUNNING:
            state.end(seq, now, "done")
        elif seq.phase is Phase.WAITING:
            seq.fold()


def fail_overruns(state: ReplicaState, now: float) -> None:
    """The worker ends sequences at their limit. If it did not, nothing would ever be planned for them again."""
    for seq in state.slots.sequences():
        if seq.length >= seq.limit:
            text = f"the model worker did not end the sequence at its limit of {seq.limit} tokens"
            state.fail(seq, now, ErrorCode.INTERNAL, text)

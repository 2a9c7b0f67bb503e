"""What a report changes."""

from radixmesh.services.scheduler.planning.plan_builder import SentPlan
from radixmesh.services.scheduler.replica import Replica
from radixmesh.services.scheduler.sequence import Phase
from radixmesh.shared.errors import ErrorCode, RadixMeshError
from radixmesh.shared.messages import Finish, StepReport

_RUNNING = int(Finish.RUNNING)


class WorkerOutOfStep(RadixMeshError):
    """Plans and reports no longer match: something was lost or is wrong; the epoch is over."""


def check_report(report: StepReport, plan: SentPlan) -> None:
    """Raises WorkerOutOfStep if the report's columns do not fit each other or the plan."""
    accepted, most = report.accepted.tolist(), plan.most
    if not len(accepted) == report.finish.size == len(most):
        raise WorkerOutOfStep(f"report {report.seq} has not a row for each of {len(most)} spans")
    if sum(accepted) != report.tokens.size:
        raise WorkerOutOfStep(f"report {report.seq} has {report.tokens.size} tokens, not as its rows say")
    if accepted != most and not all(0 <= count <= bound for count, bound in zip(accepted, most, strict=True)):
        raise WorkerOutOfStep(f"report {report.seq} tells of more tokens than its plan allows, or of fewer than none")
    failed = report.failed_slots.tolist()
    if len(failed) != len(report.failures):
        raise WorkerOutOfStep(f"report {report.seq} has {len(report.failures)} reasons for {len(failed)} failures")
    total = len(plan.seqs)
    for slot in failed:
        if not 0 <= slot < total or plan.seqs[slot] is None:
            raise WorkerOutOfStep(f"report {report.seq} tells of slot {slot}, which was free")


def apply_report(replica: Replica, plan: SentPlan, report: StepReport, now: float) -> None:
    """Takes in the report of `plan`, which fits it.

    Rows belong to whoever had the slot in that plan. A sequence that was retracted since still gets its tokens, as
    they are on their way to the client; one that was cancelled does not.
    """
    replica.reported_seq = report.seq
    failures = dict(zip(report.failed_slots.tolist(), report.failures, strict=True))
    for slot, text in failures.items():
        seq = plan.seqs[slot]
        if seq is not None and seq.phase is not Phase.ENDED:
            replica.fail(seq, now, ErrorCode.INTERNAL, f"the model worker could not go on: {text}")
    _chunks_done(replica, plan)
    if report.tokens.size < sum(plan.most):
        _correct_lengths(replica, plan, report)
    _rows(replica, plan, report, now)
    counters = replica.counters
    counters.steps += max(plan.steps, 1)
    counters.step_us += report.step_us
    counters.gap_us += report.gap_us
    counters.output_tokens += report.tokens.size
    if not plan.chunks and report.tokens.size:
        replica.time_decodes(plan.steps, report.step_us)


def _chunks_done(replica: Replica, plan: SentPlan) -> None:
    for chunk in plan.chunks:
        seq = chunk.seq
        if seq.slot != chunk.slot:
            continue  # it has left the slot, and gets no other before all plans of its time there are reported
        seq.computed = chunk.end
        replica.store(seq)
        if replica.kv.moving:
            replica.slide(seq)
        replica.pending_prefixes.advance(seq)


def _correct_lengths(replica: Replica, plan: SentPlan, report: StepReport) -> None:
    """Decodes that were accepted for less than they might have been go on from where they are."""
    less = plan.advance - report.accepted[: plan.decode_slots.size]
    for i in less.nonzero()[0].tolist():
        slot = int(plan.decode_slots[i])
        seq = replica.slots.seqs[slot]
        if seq is not None and seq is plan.seqs[slot] and seq.phase is Phase.DECODE:
            replica.slots.kv_len[slot] -= int(less[i])


def _rows(replica: Replica, plan: SentPlan, report: StepReport, now: float) -> None:
    tokens, seqs, start = report.tokens.tolist(), plan.seqs, 0
    for slot, count, finish in zip(plan.slots, report.accepted.tolist(), report.finish.tolist(), strict=True):
        seq = seqs[slot]
        if seq is None or count == 0:
            continue
        if count == 1:
            seq.output.append(tokens[start])
        else:
            seq.output += tokens[start : start + count]
        start += count
        if finish != _RUNNING:
            replica.end(seq, now, "done")
        elif seq.phase is Phase.WAITING:
            seq.fold()


def fail_overruns(replica: Replica, now: float) -> None:
    """The worker ends sequences at their limit. If it did not, nothing would ever be planned for them again."""
    for seq in replica.slots.sequences():
        if seq.length >= seq.limit:
            text = f"the model worker did not end the sequence at its limit of {seq.limit} tokens"
            replica.fail(seq, now, ErrorCode.INTERNAL, text)

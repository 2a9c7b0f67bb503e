"""What a worker sends out: one `TokenBatch` per detokenizer for some steps, one `StepReport` per plan."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.shared.messages import Finish, StepPlan, StepReport, TokenBatch

NO_STOP_TOKEN = -1


@dataclass(slots=True)
class Row:
    """One token that a sequence advanced by."""

    slot: Slot
    index: int
    """Output index of the token."""
    token: int
    finish: Finish = Finish.RUNNING
    stop_token: int = NO_STOP_TOKEN
    logprob: float = float("nan")
    top: Sequence[tuple[int, float]] = ()
    """Token ids and log-probabilities of the likeliest, if they were asked for."""


@dataclass(slots=True)
class StepResult:
    """What came of one forward pass."""

    rows: list[Row] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Slot and one sentence; these sequences are at their end."""

    @property
    def urgent(self) -> bool:
        """Whether someone waits for this very step: a sequence begins or ends with it."""
        return bool(self.failures) or any(row.index == 0 or row.finish is not Finish.RUNNING for row in self.rows)


def by_slot(results: Iterable[StepResult]) -> dict[int, list[Row]]:
    """The rows of a plan's steps, in which each slot is one sequence: by slot, as slots first appear."""
    runs: dict[int, list[Row]] = {}
    for result in results:
        for row in result.rows:
            runs.setdefault(row.slot.index, []).append(row)
    return runs


def token_batches(
    results: Sequence[StepResult], replica_id: str, epoch: int, traceparents: dict[int, str]
) -> list[tuple[str, TokenBatch]]:
    """The tokens of some steps of one plan, by detokenizer.

    Args:
        traceparents: decode span contexts by slot, for rows whose span has just begun.

    Returns:
        (detokenizer id, message) pairs.
    """
    by_detokenizer: dict[str, list[list[Row]]] = defaultdict(list)
    for run in by_slot(results).values():
        by_detokenizer[run[0].slot.detokenizer_id].append(run)
    return [
        (detokenizer, _token_batch(runs, replica_id, epoch, traceparents))
        for detokenizer, runs in by_detokenizer.items()
    ]


def _token_batch(runs: list[list[Row]], replica_id: str, epoch: int, traceparents: dict[int, str]) -> TokenBatch:
    """One row of the message per run: the tokens that a sequence advanced by, in order."""
    slots, rows = [run[0].slot for run in runs], [row for run in runs for row in run]
    contexts = [traceparents.get(slot.index, "") for slot in slots] if traceparents else []
    with_logprobs = any(slot.work.params.logprobs is not None for slot in slots)
    top = [pair for row in rows for pair in row.top] if with_logprobs else []
    return TokenBatch(
        replica_id=replica_id,
        epoch=epoch,
        request_ids=[slot.request_id for slot in slots],
        choices=np.array([slot.choice for slot in slots], np.int32),
        attempts=np.array([slot.attempt for slot in slots], np.int32),
        first_index=np.array([run[0].index for run in runs], np.int32),
        counts=np.array([len(run) for run in runs], np.int32),
        tokens=np.array([row.token for row in rows], np.int32),
        finish=np.array([run[-1].finish for run in runs], np.uint8),
        cached_tokens=np.array([slot.cached_tokens for slot in slots], np.int32),
        stop_tokens=np.array([run[-1].stop_token for run in runs], np.int32),
        traceparents=contexts if any(contexts) else [],
        logprobs=np.array([row.logprob for row in rows] if with_logprobs else [], np.float32),
        top_counts=np.array([len(row.top) for row in rows] if with_logprobs else [], np.int32),
        top_ids=np.array([token for token, _ in top], np.int32),
        top_logprobs=np.array([logprob for _, logprob in top], np.float32),
    )


def step_report(plan: StepPlan, results: Sequence[StepResult], step_us: int, gap_us: int) -> StepReport:
    """One plan's report: its steps' rows joined by span."""
    by_index = by_slot(results)
    runs = [by_index.get(index, []) for index in plan.span_slots.tolist()]
    failures = [failure for result in results for failure in result.failures]
    return StepReport(
        epoch=plan.epoch,
        seq=plan.seq,
        accepted=np.array([len(run) for run in runs], np.int32),
        tokens=np.array([row.token for run in runs for row in run], np.int32),
        finish=np.array([run[-1].finish if run else Finish.RUNNING for run in runs], np.uint8),
        failed_slots=np.array([slot for slot, _ in failures], np.int32),
        failures=[reason for _, reason in failures],
        step_us=step_us,
        gap_us=gap_us,
    )

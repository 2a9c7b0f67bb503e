"""What a worker sends out after a step: one `TokenBatch` per detokenizer, one `StepReport` per plan."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from radixmesh.services.model_worker.slots import Slot
from radixmesh.shared.messages import Finish, StepReport, TokenBatch

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


def token_batches(
    result: StepResult, replica_id: str, epoch: int, traceparents: dict[int, str]
) -> list[tuple[str, TokenBatch]]:
    """The rows of `result` by detokenizer.

    Args:
        traceparents: decode span contexts by slot, for rows whose span has just begun.

    Returns:
        (detokenizer id, message) pairs.
    """
    by_detokenizer: dict[str, list[Row]] = defaultdict(list)
    for row in result.rows:
        by_detokenizer[row.slot.detokenizer_id].append(row)
    return [
        (detokenizer, _token_batch(rows, replica_id, epoch, traceparents))
        for detokenizer, rows in by_detokenizer.items()
    ]


def _token_batch(rows: list[Row], replica_id: str, epoch: int, traceparents: dict[int, str]) -> TokenBatch:
    contexts = [traceparents.get(row.slot.index, "") for row in rows] if traceparents else []
    with_logprobs = any(row.slot.params.logprobs is not None for row in rows)
    top = [pair for row in rows for pair in row.top] if with_logprobs else []
    return TokenBatch(
        replica_id=replica_id,
        epoch=epoch,
        request_ids=[row.slot.request_id for row in rows],
        choices=np.array([row.slot.choice for row in rows], np.int32),
        attempts=np.array([row.slot.attempt for row in rows], np.int32),
        first_index=np.array([row.index for row in rows], np.int32),
        counts=np.ones(len(rows), np.int32),
        tokens=np.array([row.token for row in rows], np.int32),
        finish=np.array([row.finish for row in rows], np.uint8),
        cached_tokens=np.array([row.slot.cached_tokens for row in rows], np.int32),
        stop_tokens=np.array([row.stop_token for row in rows], np.int32),
        traceparents=contexts if any(contexts) else [],
        logprobs=np.array([row.logprob for row in rows] if with_logprobs else [], np.float32),
        top_counts=np.array([len(row.top) for row in rows] if with_logprobs else [], np.int32),
        top_ids=np.array([token for token, _ in top], np.int32),
        top_logprobs=np.array([logprob for _, logprob in top], np.float32),
    )


def step_report(epoch: int, seq: int, results: Sequence[StepResult], step_us: int, gap_us: int) -> StepReport:
    """One plan's report: its steps' rows joined by slot, in the order in which slots first appear."""
    tokens: dict[int, list[int]] = {}
    finish: dict[int, Finish] = {}
    failures: list[tuple[int, str]] = []
    for result in results:
        failures += result.failures
        for row in result.rows:
            tokens.setdefault(row.slot.index, []).append(row.token)
            finish[row.slot.index] = row.finish
    return StepReport(
        epoch=epoch,
        seq=seq,
        slots=np.array(list(tokens), np.int32),
        counts=np.array([len(run) for run in tokens.values()], np.int32),
        tokens=np.array([token for run in tokens.values() for token in run], np.int32),
        finish=np.array([finish[slot] for slot in tokens], np.uint8),
        failed_slots=np.array([slot for slot, _ in failures], np.int32),
        failures=[reason for _, reason in failures],
        step_us=step_us,
        gap_us=gap_us,
    )

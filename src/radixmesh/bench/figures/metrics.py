"""Records to figures.

    |-- TTFT --|-------- the rest of the answer --------|
    sent       first     gap     gap       gap       last    [DONE]
               arrival  <---> <-------> <-------->   chunk
    |------------------------- E2E -------------------------|

An *arrival* is a read of the socket that brought output. A server may put several tokens in a chunk, and the
network several chunks in a read, so a gap between arrivals is not the time of one token. Therefore:

- ITL is the gaps between arrivals, as a reader sees them. A gap is not divided by the tokens that ended it,
  and chunks that arrived together add no gaps of zero: either would hide a stall behind a burst.
- TPOT is time per token: per request, first arrival to last chunk, divided by the tokens that came after the
  first arrival. How many came with it: what its usage says, or else one per chunk in it.
- `tokens_per_arrival` tells how far apart the two are: at 1.0 an ITL is the time of a token.

Latencies are of completed requests. Throughput counts their tokens only, over the whole run.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from radixmesh.bench.traffic.client import Record
from radixmesh.bench.traffic.load import Load


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles interpolate between the two nearest values."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        if not values:
            return None
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(float(np.mean(values)), p50, p90, p99, max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run. Spreads are in milliseconds; None where there was nothing to measure."""

    completed: int
    failed: int
    cancelled: int
    odd_length: int
    """Completed with fewer or more tokens than asked for."""
    uncounted: int
    """Completed without a usage: their output tokens are their chunks, their prompt tokens what was sent."""
    duration_s: float
    prompt_tokens: int
    cached_tokens: int | None
    """None when the server does not say."""
    shared_tokens: int
    """Prompt tokens that a prefix cache could have known: the shared prefixes."""
    output_tokens: int
    tokens_per_arrival: float | None
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    mean_concurrency: float
    """Requests in flight, over the run's time."""
    peak_concurrency: int
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    itl_ms: Spread | None
    e2e_ms: Spread | None
    cpu_s: dict[str, float]
    """CPU seconds over the run by process; `client` is this one."""
    cpu_ms_per_output_token: dict[str, float]
    errors: dict[str, int]
    """How many requests failed with each text, the first to happen first."""


def ttft_ms(record: Record) -> float:
    return (record.arrivals[0] - record.started) * 1e3


def e2e_ms(record: Record) -> float | None:
    return None if record.ended is None else (record.ended - record.started) * 1e3


def output_tokens(record: Record) -> int:
    return record.usage.output_tokens if record.usage else record.events


def tpot_ms(record: Record) -> float | None:
    """None when nothing came after the first arrival."""
    rest = output_tokens(record) - (record.first_usage or record.first_events)
    if len(record.arrivals) < 2 or rest < 1:
        return None
    return (record.last - record.arrivals[0]) / rest * 1e3


def gaps_ms(record: Record) -> Iterator[float]:
    return ((later - earlier) * 1e3 for earlier, later in pairwise(record.arrivals))


def summarize(load: Load, cpu_s: dict[str, float]) -> Summary:
    """`cpu_s`: CPU seconds over the run of processes other than this one."""
    ended = [record for record in load.records if record.ended is not None]
    good = [record for record in ended if record.error is None]
    duration = max(load.ended - load.began, 1e-9)
    usages = [record.usage for record in good if record.usage]
    cached = [usage.cached_tokens for usage in usages if usage.cached_tokens is not None]
    prompt = sum(record.usage.prompt_tokens if record.usage else record.job.input_len for record in good)
    output = sum(map(output_tokens, good))
    arrivals = sum(len(record.arrivals) for record in good)
    busy = sum((load.ended if record.ended is None else record.ended) - record.started for record in load.records)
    cpu = {"client": load.client_cpu_s, **cpu_s}
    return Summary(
        completed=len(good),
        failed=len(ended) - len(good),
        cancelled=len(load.records) - len(ended),
        odd_length=sum(output_tokens(record) != record.job.output_len for record in good),
        uncounted=len(good) - len(usages),
        duration_s=duration,
        prompt_tokens=prompt,
        cached_tokens=sum(cached) if cached else None,
        shared_tokens=sum(record.job.prefix_len for record in good),
        output_tokens=output,
        tokens_per_arrival=output / arrivals if arrivals else None,
        output_tokens_per_s=output / duration,
        total_tokens_per_s=(prompt + output) / duration,
        requests_per_s=len(good) / duration,
        mean_concurrency=busy / duration,
        peak_concurrency=load.peak,
        ttft_ms=Spread.of([ttft_ms(record) for record in good]),
        tpot_ms=Spread.of([value for record in good if (value := tpot_ms(record)) is not None]),
        itl_ms=Spread.of([gap for record in good for gap in gaps_ms(record)]),
        e2e_ms=Spread.of([value for record in good if (value := e2e_ms(record)) is not None]),
        cpu_s=cpu,
        cpu_ms_per_output_token={name: seconds * 1e3 / output for name, seconds in cpu.items()} if output else {},
        errors=dict(Counter(record.error for record in ended if record.error is not None)),
    )


def figures(summary: Summary) -> dict[str, float]:
    """The summary's measured numbers by dotted name, such as `ttft_ms.p50`."""

    def flat(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from flat(f"{prefix}.{name}" if prefix else name, inner)
        elif value is not None:
            yield prefix, float(value)

    return dict(flat("", {name: value for name, value in asdict(summary).items() if name != "errors"}))


def over_runs(summaries: Sequence[Summary]) -> dict[str, tuple[float, float, float]]:
    """Lowest, median and highest of each figure that every run has."""
    runs = [figures(summary) for summary in summaries]
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    columns = {name: [run[name] for run in runs] for name in shared}
    return {name: (min(column), float(np.median(column)), max(column)) for name, column in columns.items()}

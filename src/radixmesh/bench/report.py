"""Figures to a table for people and to JSON for programs."""

import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from radixmesh.bench.figures.metrics import Spread, Summary, e2e_ms, output_tokens, over_runs, tpot_ms, ttft_ms
from radixmesh.bench.session import Run
from radixmesh.bench.settings import Settings
from radixmesh.bench.traffic.client import Record

_LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "E2E"}
_COLUMNS = ("mean", "p50", "p90", "p99", "max")
_OVER_RUNS = {
    "output_tokens_per_s": "output tok/s",
    "total_tokens_per_s": "total tok/s",
    "requests_per_s": "requests/s",
    "mean_concurrency": "mean concurrency",
    "cached_tokens": "cached tokens",
    **{f"{key}.{col}": f"{label} {col}, ms" for key, label in _LATENCIES.items() for col in ("mean", "p50", "p99")},
}


def heading(settings: Settings, model: str) -> str:
    load = f"{settings.concurrency} at a time" if settings.concurrency else f"{settings.request_rate:g}/s Poisson"
    prefix = ""
    if settings.shared_prefix_len:
        prefix = f"{settings.shared_prefix_len} shared (of {settings.shared_prefixes}) + "
    unit = "words" if settings.prompt == "text" and not settings.tokenizer else "tokens"
    return (
        f"{settings.path}  {model}\n"
        f"{settings.requests} requests, {load}, {prefix}{_limits(settings.input_len)} {unit} in, "
        f"{_limits(settings.output_len)} tokens out, seed {settings.seed}"
    )


def table(run: Run) -> str:
    """One run, with notes on what a reader should know before believing it."""
    return "\n".join([*_totals(run.summary), "", *_latencies(run.summary), *_cpu(run.summary), *_notes(run)])


def runs_table(runs: Sequence[Run]) -> str:
    """Lowest, median and highest over the runs."""
    spread = over_runs([run.summary for run in runs])
    labels = dict(_OVER_RUNS)
    labels |= {f"cpu_ms_per_output_token.{name}": f"CPU {name}, ms/token" for name in runs[0].summary.cpu_s}
    rows = [(label, [_number(value) for value in spread[key]]) for key, label in labels.items() if key in spread]
    return "\n".join(_aligned(f"{len(runs)} runs", ["min", "median", "max"], rows))


def write_json(path: Path, settings: Settings, runs: Sequence[Run], began: datetime) -> None:
    """`config`, `runs`, `over_runs` (min, median, max by dotted name). Raises OSError."""
    document = {
        "began": began.isoformat(timespec="seconds"),
        "client": {"python": platform.python_version(), "host": platform.platform()},
        "config": settings.to_json() | {"model": runs[0].model, "vocab_size": runs[0].vocab_size},
        "runs": [
            asdict(run.summary)
            | ({"requests": [_request(record) for record in run.records]} if settings.json_requests else {})
            for run in runs
        ],
        "over_runs": {
            name: {"min": low, "median": middle, "max": high}
            for name, (low, middle, high) in over_runs([run.summary for run in runs]).items()
        },
    }
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def now() -> datetime:
    return datetime.now(UTC)


def _totals(summary: Summary) -> Iterator[str]:
    cancelled = f", {summary.cancelled} cancelled" if summary.cancelled else ""
    yield (
        f"requests     {summary.completed} completed, {summary.failed} failed{cancelled} "
        f"in {summary.duration_s:.2f} s ({summary.requests_per_s:.2f}/s)"
    )
    yield f"in flight    {summary.mean_concurrency:.1f} mean, {summary.peak_concurrency} peak"
    cached = "unknown" if summary.cached_tokens is None else f"{summary.cached_tokens:,}"
    per_arrival = f", {summary.tokens_per_arrival:.2f} per arrival" if summary.tokens_per_arrival else ""
    yield (f"tokens       {summary.prompt_tokens:,} in (cached: {cached}), {summary.output_tokens:,} out{per_arrival}")
    yield (
        f"throughput   {summary.output_tokens_per_s:,.1f} output tok/s, {summary.total_tokens_per_s:,.1f} total tok/s"
    )


def _latencies(summary: Summary) -> list[str]:
    rows = []
    for key, label in _LATENCIES.items():
        spread: Spread | None = getattr(summary, key)
        values = ["-"] * len(_COLUMNS) if spread is None else [_number(getattr(spread, col)) for col in _COLUMNS]
        rows.append((label, values))
    return _aligned("ms", _COLUMNS, rows)


def _cpu(summary: Summary) -> list[str]:
    per_token = summary.cpu_ms_per_output_token
    rows = [
        (name, [f"{seconds:.2f}", _number(per_token[name]) if name in per_token else "-"])
        for name, seconds in summary.cpu_s.items()
    ]
    return ["", *_aligned("CPU", ["seconds", "ms per output token"], rows)]


def _notes(run: Run) -> list[str]:
    summary, notes = run.summary, []
    notes += [f"error: {count} x {text}" for text, count in summary.errors.items()]
    if summary.odd_length:
        notes.append(f"note: {summary.odd_length} answers are not as long as asked for (is ignore_eos supported?)")
    if summary.uncounted:
        notes.append(f"note: {summary.uncounted} answers carried no usage: their tokens are counted by chunks")
    unexpected = (summary.cached_tokens or 0) - summary.shared_tokens
    if unexpected > 0.05 * summary.prompt_tokens:
        notes.append("note: the server had these prompts in its prefix cache; take another --seed for a cold one")
    if run.cpu_error:
        notes.append(f"note: {run.cpu_error}")
    return ["", *notes] if notes else []


def _request(record: Record) -> dict[str, Any]:
    return {
        "index": record.index,
        "ttft_ms": ttft_ms(record) if record.arrivals else None,
        "tpot_ms": tpot_ms(record),
        "e2e_ms": e2e_ms(record),
        "prompt_tokens": record.usage.prompt_tokens if record.usage else None,
        "cached_tokens": record.usage.cached_tokens if record.usage else None,
        "output_tokens": output_tokens(record),
        "asked_output_tokens": record.job.output_len,
        "arrivals": len(record.arrivals),
        "finish_reason": record.finish_reason,
        "error": record.error,
        "cancelled": record.ended is None,
    }


def _aligned(corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    first = max(11, *(len(label) for label, _ in rows))
    widths = [max(9, len(column), *(len(cells[i]) for _, cells in rows)) for i, column in enumerate(columns)]
    return [
        "  ".join([label.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for label, cells in [(corner, columns), *rows]
    ]


def _number(value: float) -> str:
    """About four digits, so that 0.034 and 12345 both say something."""
    digits = 0 if value >= 10_000 else 1 if value >= 100 else 2 if value >= 1 else 3
    return f"{value:,.{digits}f}"


def _limits(limits: tuple[int, int]) -> str:
    low, high = limits
    return str(low) if low == high else f"{low}-{high}"

"""Results to Markdown, for people, and to JSON, for programs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.comparison.results import Results, Spread, Verdict, verdicts
from benchmarks.comparison.workloads import CLIENT_CPU, LABELS, REST_CPU, Workload

WORKER_CPU = "cpu_ms_per_output_token.worker"
CACHED = "cached_tokens"


def markdown(results: Results, workloads: Sequence[Workload]) -> str:
    lines = ["# RadixMesh and its peers, on one machine in one run", "", *_setup(results), ""]
    lines += _summary(results, workloads)
    for workload in workloads:
        lines += ["", f"## {workload.title}", "", *_workload(results, workload)]
    lines += ["", "## Start to ready, seconds", "", *_starts(results)]
    lines += ["", "## Processor time", "", *_cpu(results, workloads)]
    return "\n".join(lines) + "\n"


def write(results: Results, workloads: Sequence[Workload], path: Path) -> None:
    """`path`.md and `path`.json. Raises OSError."""
    path.with_suffix(".md").write_text(markdown(results, workloads), encoding="utf-8")
    document = asdict(results) | {
        "targets": {
            workload.name: [asdict(verdict) for verdict in verdicts(results, workload)] for workload in workloads
        }
    }
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _setup(results: Results) -> Iterator[str]:
    machine = ", ".join(f"{value}" for value in results.machine.values())
    yield f"{results.began}. {machine}."
    yield ""
    yield "Repeats are interleaved; the idle servers are suspended. Figures are min / median / max over the repeats;"
    yield "ratios are taken repeat by repeat."
    yield ""
    for name, version in results.versions.items():
        settings = results.settings.get(name)
        yield f"- {name}: {version}" + (f"; {settings}" if settings else "")
    for name, settings in results.settings.items():
        if name not in results.versions:
            yield f"- {name}: {settings}"
    for name, reason in results.left_out.items():
        yield f"- left out: {name}: {' '.join(reason.split())[:400]}"


def _summary(results: Results, workloads: Sequence[Workload]) -> list[str]:
    rows = []
    for workload in workloads:
        for verdict in verdicts(results, workload):
            ours = results.spread(workload, verdict.target.server)
            reached = _spread(verdict.reached, 2)
            met = "-" if verdict.reached is None else "yes" if verdict.met else "no"
            label = LABELS[workload.figure]
            who = verdict.target.server
            rows.append([workload.title, label, f"{who}: {_spread(ours)}", _target(workload, verdict), reached, met])
    return _table(["workload", "figure", "ours", "target", "reached", "met"], rows)


def _target(workload: Workload, verdict: Verdict) -> str:
    if verdict.target.against == "floor":
        return f"at least {verdict.target.ratio:.0%} of the read bandwidth"
    comparison = "at least" if workload.more_is_better else "at most"
    return f"{comparison} {verdict.target.ratio:g}x {verdict.against}"


def _workload(results: Results, workload: Workload) -> Iterator[str]:
    best = results.best_peer(workload)
    rows = []
    for name in workload.servers:
        spread = results.spread(workload, name)
        if spread is None:
            continue
        ratio = results.ratio(workload, name, best) if best and name != best else None
        cached = results.spread(workload, name, CACHED)
        rows.append([name, *_cells(spread), _spread(ratio, 2), f"{cached.middle:,.0f}" if cached else "not told"])
    yield from _table([LABELS[workload.figure], "min", "median", "max", f"by {best or 'peer'}", "tokens cached"], rows)
    floors = results.floors.get(workload.shape)
    if floors and workload.figure.startswith("tpot"):
        speed, time = (Spread.of([floor[i] for floor in floors]) for i in (0, 1))
        yield ""
        yield f"Floor: {_spread(time)} ms to read bfloat16 weights once, at {_spread(speed)} GB/s."
    for item in results.runs:
        if item.workload == workload.name and item.run.notes:
            yield f"\n{item.server}, repeat {item.repeat + 1}: {'; '.join(item.run.notes)}"


def _starts(results: Results) -> list[str]:
    rows = []
    for name, seconds in results.starts.items():
        spread = Spread.of(seconds)
        if spread:
            rows.append([name, *_cells(spread), str(len(seconds))])
    return _table(["", "min", "median", "max", "starts"], rows)


def _cpu(results: Results, workloads: Sequence[Workload]) -> Iterator[str]:
    yield "Milliseconds of processor time per output token: of the worker, of all other processes of the server, and of"
    yield "the load client (for a server in process: of everything). Medians."
    yield ""
    rows = []
    for workload in workloads:
        for name in results.servers(workload):
            spreads = [results.spread(workload, name, figure) for figure in (WORKER_CPU, REST_CPU, CLIENT_CPU)]
            worker, rest, client = ("-" if spread is None else f"{spread.middle:.3f}" for spread in spreads)
            rows.append([workload.title, name, worker, rest, client])
    yield from _table(["workload", "server", "worker", "all others", "client"], rows)


def _cells(spread: Spread) -> list[str]:
    return [_number(spread.low), _number(spread.middle), _number(spread.high)]


def _spread(spread: Spread | None, digits: int | None = None) -> str:
    if spread is None:
        return "-"
    values = (spread.low, spread.middle, spread.high)
    return " / ".join(_number(value) if digits is None else f"{value:.{digits}f}" for value in values)


def _number(value: float) -> str:
    """About three digits."""
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 2}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["Nothing was measured."]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]

"""What was measured, and the figures made of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.comparison.workloads import PEERS, Target, Workload


@dataclass(frozen=True, slots=True)
class Run:
    """Figures of one run by the bench's dotted names, such as `ttft_ms.p50`."""

    figures: dict[str, float]
    notes: tuple[str, ...] = ()
    """What a reader should know before believing it."""

    @classmethod
    def from_bench(cls, document: dict[str, Any]) -> "Run":
        """From what `radixmesh bench --json` wrote about one run."""
        summary = document["runs"][0]
        figures = {name: spread["median"] for name, spread in document["over_runs"].items()}
        return cls.of(figures, summary["errors"], summary["odd_length"])

    @classmethod
    def of(cls, figures: dict[str, float], errors: dict[str, int], odd_length: int) -> "Run":
        """A run with failed requests keeps no figures: it was another load than the others had."""
        notes = [f"no figures, because of {count} x {text}" for text, count in errors.items()]
        if odd_length:
            notes.append(f"{odd_length} answers of another length than asked for")
        return cls({} if errors else figures, tuple(notes))


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn and what came of it."""

    repeat: int
    workload: str
    server: str
    run: Run


@dataclass(frozen=True, slots=True)
class Spread:
    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        return cls(min(values), median(values), max(values)) if values else None


@dataclass(slots=True)
class Results:
    """All of one comparison, in the order in which it happened."""

    began: str
    machine: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """By server."""
    runs: list[Measured] = field(default_factory=list)
    starts: dict[str, list[float]] = field(default_factory=dict)
    """Seconds to ready, by "server, shape"."""
    floors: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """(GB/s, ms to read the weights once), by shape, once for each repeat."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by "server, shape" or "server, workload, repeat"."""

    def values(self, workload: Workload, server: str, figure: str) -> dict[int, float]:
        """By repeat."""
        return {
            item.repeat: item.run.figures[figure]
            for item in self.runs
            if (item.workload, item.server) == (workload.name, server) and figure in item.run.figures
        }

    def spread(self, workload: Workload, server: str, figure: str | None = None) -> Spread | None:
        return Spread.of(list(self.values(workload, server, figure or workload.figure).values()))

    def servers(self, workload: Workload) -> list[str]:
        """That have a figure, in the workload's order."""
        return [name for name in workload.servers if self.values(workload, name, workload.figure)]

    def best_peer(self, workload: Workload) -> str | None:
        """By the median."""
        spreads = {name: self.spread(workload, name) for name in self.servers(workload) if name in PEERS}
        middles = {name: spread.middle for name, spread in spreads.items() if spread}
        if not middles:
            return None
        return (max if workload.more_is_better else min)(middles, key=middles.__getitem__)

    def ratio(self, workload: Workload, server: str, against: str) -> Spread | None:
        """`server`'s figure by that of `against`, repeat by repeat: both were measured minutes apart."""
        ours, theirs = self.values(workload, server, workload.figure), self.reference(workload, against)
        return Spread.of([ours[repeat] / theirs[repeat] for repeat in sorted(ours.keys() & theirs.keys())])

    def reference(self, workload: Workload, against: str) -> dict[int, float]:
        """The values that a target is held against, by repeat. The floor is the time to read the weights once."""
        if against == "floor":
            return {repeat: floor[1] for repeat, floor in enumerate(self.floors.get(workload.shape, ()))}
        name = self.best_peer(workload) if against == "best peer" else against
        return self.values(workload, name, workload.figure) if name else {}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was reached."""

    target: Target
    against: str
    """The server, or "floor"."""
    reached: Spread | None
    """None: one side is missing."""
    met: bool
    """By the median."""


def verdicts(results: Results, workload: Workload) -> Iterable[Verdict]:
    for target in workload.targets:
        against = target.against
        if against == "best peer":
            against = results.best_peer(workload) or against
        reached = results.ratio(workload, target.server, against)
        if reached and target.against == "floor":  # the share of the bandwidth that is used
            reached = Spread(1 / reached.high, 1 / reached.middle, 1 / reached.low)
        more = workload.more_is_better or target.against == "floor"
        met = reached is not None and (reached.middle >= target.ratio if more else reached.middle <= target.ratio)
        yield Verdict(target, against, reached, met)

"""The order of runs. Repeats are interleaved, so that a machine that gets slower does so for everyone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.comparison.workloads import BRIEF, Workload


@dataclass(frozen=True, slots=True)
class Turn:
    """One server under one load, once."""

    repeat: int
    workload: Workload
    server: str
    seed: int
    """The same for all servers of a repeat, so that all get the same prompts; no two repeats share one."""
    warmup: int
    """Unmeasured requests before it."""


def turns(workloads: Sequence[Workload], servers: Sequence[str], repeats: int, seed: int = 0) -> Iterator[Turn]:
    """Every repeat of every load, the servers in turn; who comes first moves on by one with each repeat."""
    for repeat in range(repeats):
        for number, workload in enumerate(workloads):
            able = [server for server in servers if server in workload.servers]
            if not able:
                continue
            first = repeat % len(able)
            run_seed = seed + repeat * len(workloads) + number
            for server in (*able[first:], *able[:first]):
                yield Turn(repeat, workload, server, run_seed, _warmup(workload, repeat == 0 or server in BRIEF))


def _warmup(workload: Workload, fresh: bool) -> int:
    """A full batch for a fresh server: allocators and shapes that are new. Later, what being suspended cooled down."""
    return min(workload.concurrency, workload.requests) if fresh else min(2, workload.concurrency)

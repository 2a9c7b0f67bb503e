"""Many requests at once: a fixed number in flight, or Poisson arrivals."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from radixmesh.bench.traffic.client import Record
from radixmesh.bench.traffic.workload import Job

Send = Callable[[Record], Awaitable[None]]


@dataclass(slots=True)
class Load:
    """One run while it lasts and after it."""

    records: list[Record] = field(default_factory=list)
    """Of every request that was started, in order of start."""
    in_flight: int = 0
    peak: int = 0
    done: int = 0
    began: float = 0.0
    ended: float = 0.0
    client_cpu_s: float = 0.0
    """CPU time of this process over the run."""


async def drive(
    jobs: Sequence[Job],
    send: Send,
    load: Load,
    stop: asyncio.Event,
    *,
    concurrency: int | None,
    max_seconds: float | None = None,
) -> None:
    """Sends the jobs, `concurrency` at a time, or each at its time when that is None, and fills `load`.

    Returns when all have ended. After `max_seconds` no more are started. When `stop` is set, those in flight
    are cancelled at once.
    """
    cpu_before = time.process_time()
    load.began = perf_counter()
    queue = enumerate(jobs)
    until = load.began + max_seconds if max_seconds is not None else float("inf")
    if concurrency is None:
        work = asyncio.create_task(_by_time(queue, send, load, until))
    else:
        work = asyncio.create_task(_closed(queue, send, load, until, min(concurrency, len(jobs))))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        work.cancel()
        result = (await asyncio.gather(work, stopped, return_exceptions=True))[0]
        load.ended = perf_counter()
        load.client_cpu_s = time.process_time() - cpu_before
    if isinstance(result, Exception):
        raise result


async def _closed(queue: Iterator[tuple[int, Job]], send: Send, load: Load, until: float, concurrency: int) -> None:
    async def client() -> None:
        for index, job in queue:
            started = perf_counter()
            if started >= until:
                return
            await _one(Record(index, job, started), send, load)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())


async def _by_time(queue: Iterator[tuple[int, Job]], send: Send, load: Load, until: float) -> None:
    async with asyncio.TaskGroup() as group:
        for index, job in queue:
            due = load.began + job.at
            if due >= until:
                return
            await asyncio.sleep(max(0.0, due - perf_counter()))
            group.create_task(_one(Record(index, job, due), send, load))


async def _one(record: Record, send: Send, load: Load) -> None:
    load.records.append(record)
    load.in_flight += 1
    load.peak = max(load.peak, load.in_flight)
    try:
        await send(record)
        load.done += 1
    finally:
        load.in_flight -= 1

"""The order of things: find the model, warm up, then the measured runs."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from radixmesh.bench.figures.cpu import CpuMeter
from radixmesh.bench.figures.metrics import Summary, summarize
from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.traffic.client import Record, Served, find_model, open_session, send
from radixmesh.bench.traffic.load import Load, drive
from radixmesh.bench.traffic.workload import Job, alphabet, make_run


@dataclass(frozen=True, slots=True)
class Run:
    model: str
    vocab_size: int | None
    """Token ids of the prompts were below it; None for text."""
    records: list[Record]
    summary: Summary
    cpu_error: str | None
    """Why the CPU time of other processes is missing though it was asked for."""


async def measure(settings: Settings, stop: asyncio.Event, watch: Callable[[Load], None]) -> AsyncGenerator[Run]:
    """Each measured run as it ends; `watch` gets the state of each as it begins.

    Setting `stop` cuts the present run short: it is given with what it has, and is the last.
    Raises BenchError when nothing can be measured, as when every request of a warm-up fails.
    """
    meter = CpuMeter(settings.pid_cpu, settings.cpu_of_tree)
    meter.read()  # a wrong process id shows before the load, not after
    async with open_session(settings) as session:
        served = await _served(session, settings)
        source = await asyncio.to_thread(alphabet, settings, served.vocab_size)
        for number in range(settings.repeats + 1):
            jobs, warmers = await asyncio.to_thread(make_run, settings, served.name, source, number)
            await _warm_up(session, settings, jobs if number == 0 else warmers, stop)
            if stop.is_set():
                return
            if number:
                load = Load()
                watch(load)
                cpu_s, cpu_error = await _run(session, settings, jobs, load, meter, stop)
                summary = summarize(load, cpu_s)
                yield Run(served.name, source.vocab_size, load.records, summary, cpu_error)


async def _served(session: aiohttp.ClientSession, settings: Settings) -> Served:
    """Asks the server only for what the flags leave open. Raises BenchError."""
    if settings.model and (settings.prompt == "text" or settings.vocab_size or settings.tokenizer):
        return Served(settings.model, settings.vocab_size)
    return await find_model(session, settings.url, settings.model)


async def _run(
    session: aiohttp.ClientSession,
    settings: Settings,
    jobs: Sequence[Job],
    load: Load,
    meter: CpuMeter,
    stop: asyncio.Event,
) -> tuple[dict[str, float], str | None]:
    """Fills `load`; gives the CPU seconds it took by name, and why some are missing."""
    before = meter.read()
    await drive(
        jobs,
        functools.partial(send, session, settings.path),
        load,
        stop,
        concurrency=settings.concurrency,
        max_seconds=settings.max_seconds,
    )
    try:
        after, cpu_error = meter.read(), None
    except BenchError as error:  # a process that died under load must not cost the other figures
        after, cpu_error = {}, str(error)
    return {name: seconds - before[name] for name, seconds in after.items() if name in before}, cpu_error


async def _warm_up(
    session: aiohttp.ClientSession, settings: Settings, jobs: Sequence[Job], stop: asyncio.Event
) -> None:
    load = Load()
    deliver = functools.partial(send, session, settings.path)
    await drive(jobs, deliver, load, stop, concurrency=settings.concurrency or 1)
    errors = [record.error for record in load.records if record.error is not None]
    if errors and len(errors) == len(jobs):
        raise BenchError(f"the warm-up failed: {errors[0]}")

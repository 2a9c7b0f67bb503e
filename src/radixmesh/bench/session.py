"""The order of things: find the model, warm up, then the measured runs."""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from radixmesh.bench.client import Record, first_model, open_session, send
from radixmesh.bench.cpu import CpuMeter
from radixmesh.bench.load import Load, drive
from radixmesh.bench.metrics import Summary, summarize
from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.workload import Job, alphabet, make_run


@dataclass(frozen=True, slots=True)
class Run:
    model: str
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
    source = await asyncio.to_thread(alphabet, settings)
    async with open_session(settings) as session:
        model = settings.model or await first_model(session, settings.url)
        for number in range(settings.repeats + 1):
            jobs, warmers = await asyncio.to_thread(make_run, settings, model, source, number)
            await _warm_up(session, settings, jobs if number == 0 else warmers, stop)
            if stop.is_set():
                return
            if number:
                load = Load()
                watch(load)
                yield await _run(session, settings, model, jobs, load, meter, stop)


async def _run(
    session: aiohttp.ClientSession,
    settings: Settings,
    model: str,
    jobs: Sequence[Job],
    load: Load,
    meter: CpuMeter,
    stop: asyncio.Event,
) -> Run:
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
    cpu_s = {name: seconds - before[name] for name, seconds in after.items() if name in before}
    return Run(model, load.records, summarize(load, cpu_s), cpu_error)


async def _warm_up(
    session: aiohttp.ClientSession, settings: Settings, jobs: Sequence[Job], stop: asyncio.Event
) -> None:
    load = Load()
    deliver = functools.partial(send, session, settings.path)
    await drive(jobs, deliver, load, stop, concurrency=settings.concurrency or 1)
    errors = [record.error for record in load.records if record.error is not None]
    if errors and len(errors) == len(jobs):
        raise BenchError(f"the warm-up failed: {errors[0]}")

"""The order of things: find the model, warm up, then the measured runs."""

import asyncio
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from radixmesh.bench.client import first_model, open_session, send
from radixmesh.bench.cpu import CpuMeter
from radixmesh.bench.load import Load, drive
from radixmesh.bench.metrics import Summary, summarize
from radixmesh.bench.settings import BenchError, Settings
from radixmesh.bench.workload import Job, alphabet, make_run


@dataclass(frozen=True, slots=True)
class Run:
    model: str
    load: Load
    summary: Summary


async def measure(settings: Settings, stop: asyncio.Event, load: Load) -> AsyncIterator[Run]:
    """Each measured run as it ends. `load` shows the one under way.

    Setting `stop` cuts the run short; it is given all the same when it has begun, and is the last.
    Raises BenchError when the warm-up fails entirely: then so would the runs.
    """
    meter = CpuMeter(settings.pid_cpu, settings.cpu_of_tree)
    meter.read()  # a wrong process id shows before the load, not after
    source = await asyncio.to_thread(alphabet, settings)
    async with open_session(settings) as session:
        model = settings.model or await _unless(stop, first_model(session, settings.url))
        if model is None:
            return
        jobs, warmers = await asyncio.to_thread(make_run, settings, model, source, 0)
        await _warm_up(session, settings, jobs, stop)
        for number in range(1, settings.repeats + 1):
            jobs, warmers = await asyncio.to_thread(make_run, settings, model, source, number)
            await _warm_up(session, settings, warmers, stop)
            if stop.is_set():
                return
            load.__init__()  # type: ignore[misc]
            yield await _run(session, settings, model, jobs, stop, load, meter)

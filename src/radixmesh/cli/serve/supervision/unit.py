"""Processes that live and die together, kept running."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from radixmesh.cli.serve.children.prefork import WaitingChild
from radixmesh.cli.serve.children.process import Process, describe
from radixmesh.cli.serve.host.machine import free_port
from radixmesh.cli.serve.planning.plan import ProcessSpec, UnitSpec
from radixmesh.cli.serve.supervision.backoff import Backoff
from radixmesh.shared.errors import RadixMeshError

WRONG_SETTINGS = 2
"""Exit status of a service whose flags are wrong: starting it again cannot help."""

REPORTED_LINES = 12


class HopelessError(RadixMeshError):
    """A unit cannot be started; the text says why."""


@dataclass(frozen=True)
class UnitContext:
    """What a unit asks of its supervisor."""

    log_dir: Path
    environ: dict[str, str]
    """Of every child, before what its spec adds."""
    show: Callable[[str, int, str], bool]
    """Takes (process, level, line) of the children's output; tells whether people have seen it."""
    say: Callable[[str], None]
    changed: Callable[[], None]
    """Called when a process has started or died."""
    died: Callable[[ProcessSpec], Awaitable[None]]
    """Tells the mesh."""
    up_for: Callable[[ProcessSpec, float], float | None]
    """Takes a process and its age in seconds; gives the seconds since it came up, None if it is not up."""
    preforked: Callable[[str], WaitingChild | None] = lambda _instance: None
    """Takes an instance; gives the child that was forked for it in advance, None if there is none (any more)."""


@dataclass
class Running:
    spec: ProcessSpec
    process: Process


class Unit:
    """Runs the processes of one `UnitSpec`. When one dies, the others are killed, and all are started again."""

    def __init__(self, spec: UnitSpec, context: UnitContext, backoff: Backoff | None = None) -> None:
        self.spec = spec
        self.running: list[Running] = []
        self._context = context
        self._backoff = backoff or Backoff()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Returns after `stop`, when no process is left.

        Raises:
            HopelessError: the processes die again and again without ever having served.
            OSError: they cannot be started at all, not even once.
        """
        while not self._stopping.is_set():
            try:
                await self._start()
            except OSError as error:  # no memory, no disk: once it has served, it is worth waiting for better times
                await self._not_started(error)
                continue
            dead, up_for = await self._until_death()
            if self._stopping.is_set():
                return
            for spec in self.spec.processes:
                await self._context.died(spec)
            delay = self._backoff.died(up_for)
            self._report(dead, delay)
            await self._pause(delay)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """Begins the end; call again with SIGKILL to force it."""
        self._stopping.set()
        for item in self.running:
            item.process.signal(signum)

    async def _start(self) -> None:
        dist_port = free_port() if len(self.spec.processes) > 1 else None
        for spec in self.spec.commands(dist_port):

            def show(level: int, line: str, name: str = spec.label) -> bool:
                return self._context.show(name, level, line)

            environ = {**self._context.environ, **spec.environ}
            waiting = self._context.preforked(spec.instance)
            process = await Process.start(spec.label, spec.argv, environ, self._context.log_dir, show, waiting)
            self.running.append(Running(spec, process))
        self._context.changed()
        if self._stopping.is_set():  # `stop` came while we were starting, and has missed the last one
            self.stop()

    async def _not_started(self, error: OSError) -> None:
        """Kills those of a group that could be started, and waits. Raises the error if it has never served."""
        for item in self.running:
            item.process.signal(signal.SIGKILL)
        await asyncio.gather(*(item.process.wait() for item in self.running))
        self.running.clear()
        if not self._backoff.served:
            raise error
        delay = self._backoff.died(None)
        self._context.say(f"{self.spec.name} cannot be started: {error}; trying again in {delay:.1f} s")
        await self._pause(delay)

    async def _until_death(self) -> tuple[Running, float | None]:
        """Waits until no process is left. Gives the one that died first, and how long it had been up."""
        waits = {asyncio.create_task(item.process.wait()): item for item in self.running}
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        first = waits[self._culprit(list(done))]
        up_for = self._context.up_for(first.spec, time.monotonic() - first.process.started)
        if not self._stopping.is_set():
            for item in self.running:
                item.process.signal(signal.SIGKILL)
        await asyncio.gather(*waits)
        self.running.clear()
        self._context.changed()
        return first, up_for

    @staticmethod
    def _culprit(done: Sequence["asyncio.Task[int]"]) -> "asyncio.Task[int]":
        """Of several found dead at once: one that failed by itself, for its log says why."""
        return next((task for task in done if task.result() > 0), done[0])

    def _report(self, dead: Running, delay: float) -> None:
        """Tells of a death. Raises HopelessError if there is no point in going on."""
        returncode, tail = dead.process.returncode or 0, list(dead.process.tail)[-REPORTED_LINES:]
        what = f"{dead.spec.label} {describe(returncode)}"
        wrong = returncode == WRONG_SETTINGS and not self._backoff.served
        if wrong or self._backoff.hopeless:
            times = "" if wrong else f", {self._backoff.failures} times in a row,"
            raise HopelessError(f"{what}{times} before it was ready{_last_words(tail)}")
        together = f" with its group of {len(self.spec.processes)}" if len(self.spec.processes) > 1 else ""
        unseen = [f"    {line}" for line, seen in tail if not seen]
        text = f"{what}; starting it again{together} in {delay:.1f} s" + (". Its last lines:" if unseen else "")
        self._context.say("\n".join([text, *unseen]))

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return


def _last_words(tail: Sequence[tuple[str, bool]]) -> str:
    """The rest of a sentence about a death: the last lines, unless people have already seen what matters of them."""
    if any(seen for _, seen in tail):
        return "; what it said is above"
    if not tail:
        return ", and said nothing"
    return "\n".join([". Its last lines:", *(f"    {line}" for line, _ in tail)])

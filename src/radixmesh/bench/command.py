"""`radixmesh bench`: Ctrl-C, output and exit codes.

Importing this is cheap; aiohttp and numpy are imported by `run`.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from radixmesh.bench.flags import add_arguments
from radixmesh.bench.settings import BenchError, Settings
from radixmesh.shared.host.signals import is_ignored

if TYPE_CHECKING:
    from radixmesh.bench.session import Run
    from radixmesh.bench.traffic.load import Load

__all__ = ["add_arguments", "run"]

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def run(args: argparse.Namespace) -> int:
    """0: all requests completed; 1: some failed, or nothing was measured; 2: wrong usage; 130: Ctrl-C."""
    try:
        settings = Settings.from_args(args)
    except BenchError as error:
        return _complain(error, USAGE)
    try:
        import aiohttp  # noqa: F401
        import numpy  # noqa: F401
    except ImportError as error:
        return _complain(f"{error}; the bench needs aiohttp and numpy: pip install 'radixmesh[gateway]'", FAILED)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_run(settings))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _run(settings: Settings) -> int:
    from radixmesh.bench import report
    from radixmesh.bench.session import measure

    runs: list[Run] = []
    began, stop, code = report.now(), asyncio.Event(), OK
    progress = _Progress()
    try:
        with _stop_on_ctrl_c(stop):
            async with contextlib.aclosing(measure(settings, stop, progress.watch)) as results:
                async for result in results:
                    progress.clear()
                    if not runs:
                        print(report.heading(settings, result.model), end="\n\n")
                    print(report.table(result), end="\n\n", flush=True)
                    runs.append(result)
                    code = FAILED if result.summary.failed else code
    except BenchError as error:  # what earlier runs gave is worth reporting
        code = _complain(error, FAILED)
    if len(runs) > 1:
        print(report.runs_table(runs))
    if settings.json_path and runs:
        try:
            report.write_json(settings.json_path, settings, runs, began)
        except OSError as error:
            code = _complain(f"--json: {error}", FAILED)
    return INTERRUPTED if stop.is_set() else code


class _Progress:
    """A line on a terminal's standard error while a run lasts, twice a second."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, load: "Load") -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{load.done} done, {load.in_flight} in flight")
            sys.stderr.flush()
            self._timer = asyncio.get_running_loop().call_later(0.5, self.watch, load)

    def clear(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


@contextlib.contextmanager
def _stop_on_ctrl_c(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C sets `stop`; a second one is a KeyboardInterrupt as usual. None counts where it is ignored."""
    if is_ignored(signal.SIGINT):
        yield
        return
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    with contextlib.suppress(NotImplementedError):  # Windows: the first is a KeyboardInterrupt, too
        loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed: the client shares its cores with the server, so its own time counts."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _complain(error: object, code: int) -> int:
    print(f"radixmesh bench: {error}", file=sys.stderr)
    return code

"""The processes of one server: its start, its sleep while others are measured, its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

LOG_TAIL = 2000
"""Characters of a log that an error quotes."""


class ServerError(Exception):
    """A server could not be started, or ended by itself; its text says why."""


class Tree:
    """A process and all below it, in whatever session or group they are.

    A suspended tree takes memory but no time: it is what makes starting each server once, and interleaving the
    measurements, possible together.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: Path, *, pipes: bool = False) -> None:
        """Starts `argv` with `environ` added to our own. Raises ServerError.

        Args:
            log: gets its output (with `pipes`, standard error only).
            pipes: `stdin` and `stdout` can be used to talk with it.
        """
        self.log = log
        self.started = time.perf_counter()
        talk = subprocess.PIPE if pipes else None
        try:
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    argv,
                    env={**os.environ, **environ},
                    stdin=talk or subprocess.DEVNULL,
                    stdout=talk or output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise ServerError(f"{argv[0]} cannot be started: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None, "a tree without pipes"  # noqa: S101
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None, "a tree without pipes"  # noqa: S101
        return self._process.stdout

    def check(self) -> None:
        """Raises ServerError, quoting the log's end, if the process has ended."""
        if (code := self._process.poll()) is not None:
            raise ServerError(f"ended with status {code}:\n{self.log_tail()}")

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:].strip()

    def find(self, name: str) -> int | None:
        """The process id of the first descendant whose command line or title contains `name`."""
        for process in self._members()[1:]:
            with contextlib.suppress(psutil.Error):
                if name in " ".join([process.name(), *process.cmdline()]):
                    return process.pid
        return None

    def suspend(self) -> None:
        """Parents first: none should see its child asleep and act on it."""
        for process in self._members():
            with contextlib.suppress(psutil.Error):
                process.suspend()

    def resume(self) -> None:
        """Children first."""
        for process in reversed(self._members()):
            with contextlib.suppress(psutil.Error):
                process.resume()

    def end(self, patience: float = 20.0) -> None:
        """Asks it to end, then makes it; nothing of it is left."""
        members = self._members()
        self.resume()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(members, timeout=patience)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()

    def _members(self) -> list[psutil.Process]:
        """The root first, parents before their children; empty when all is over."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def cores() -> list[int]:
    """Those that this process may use."""
    if sys.platform != "linux":
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def free_gib() -> float:
    """Memory that can be had without swapping."""
    return psutil.virtual_memory().available / 2**30

"""One child process: its start, its output, its end."""

import asyncio
import contextlib
import io
import logging
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol

from radixmesh.cli.serve.children.prefork import Forked, WaitingChild, die_with
from radixmesh.cli.serve.host import interpreter

TAIL_LINES = 50
"""Of a child's output that are kept for the report of its death."""

LINE_BYTES = 1 << 20
LOG_BYTES = 32 << 20
"""Of a log file; one older file is kept."""

_LEVEL = re.compile(r"^(?:\d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|\[\d+\] \S+ \S+ \[(\w{3})\])")
"""Our text logs, and nats-server's."""

_NATS_LEVELS = {"DBG": logging.DEBUG, "INF": logging.INFO, "WRN": logging.WARNING, "ERR": logging.ERROR}

Show = Callable[[int, str], bool]
"""Takes each line of output with its level; tells whether people have seen it."""


def level_of(line: str, before: int) -> int:
    """The level of one line of output; a line that tells none (a traceback's) goes with the line `before` it."""
    match = _LEVEL.match(line)
    if match is None:
        return before
    if match[1]:
        return logging.getLevelNamesMapping()[match[1]]
    return _NATS_LEVELS.get(match[2], logging.CRITICAL)


def describe(returncode: int) -> str:
    """An exit status in words."""
    if returncode >= 0:
        return f"exited with {returncode}"
    name = signal.Signals(-returncode).name
    hint = " (the system kills so when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


class Child(Protocol):
    """What an `asyncio.subprocess.Process` and a `Forked` have in common."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signum: int, /) -> None: ...


async def _execute(argv: tuple[str, ...], environ: Mapping[str, str]) -> tuple[Child, int]:
    """A new child, and the reading end of its output. Raises OSError."""
    # The pipe is ours, not asyncio's, whose `wait` returns only when the last holder of a pipe has closed it.
    read_end, write_end = os.pipe()
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            env=environ,
            cwd=interpreter.folder(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return child, read_end


class LogFile(RotatingFileHandler):
    """Where a child's output is kept, within bounds. A full disk costs the log, not the mesh, and is told once.

    One that is removed, or its directory, is made anew.
    """

    def __init__(self, path: Path, show: Show) -> None:
        super().__init__(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._show = show
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and not os.path.exists(self.baseFilename):
            self.close()
        super().emit(record)

    def _open(self) -> io.TextIOWrapper:
        os.makedirs(os.path.dirname(self.baseFilename), exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._told:
            self._told = True
            self._show(logging.WARNING, f"(the log {self.baseFilename} cannot be written: {sys.exception()})")


@dataclass
class Process:
    """A running child in a session of its own, so that a Ctrl-C at the terminal reaches the supervisor alone."""

    name: str
    _child: Child
    _show: Show
    _log: LogFile
    started: float = field(default_factory=time.monotonic)
    tail: deque[tuple[str, bool]] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    """(line, whether people have seen it)."""
    _pump: asyncio.Task[None] = field(init=False)

    @classmethod
    async def start(
        cls,
        name: str,
        argv: tuple[str, ...],
        environ: Mapping[str, str],
        log_dir: Path,
        show: Show,
        waiting: WaitingChild | None = None,
    ) -> "Process":
        """Starts `argv` with just the environment `environ`; by `waiting` if there is one. Raises OSError."""
        child: Child
        if waiting is not None and waiting.order(argv, environ):
            child, read_end = Forked(waiting.pid), waiting.output
        else:
            child, read_end = await _execute(argv, environ)
        process = cls(name, child, show, LogFile(log_dir / f"{name}.log", show))
        process._pump = asyncio.create_task(process._read(io.FileIO(read_end, "rb")))
        return process

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        return self._child.returncode

    async def wait(self) -> int:
        """Waits for the end of the process, kills what it left behind, and gives its exit status."""
        returncode = await self._child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)  # compilers and the like that it had started
        # Output ends with the last holder of the pipe; one that has left our session must not keep us waiting.
        await asyncio.wait({self._pump}, timeout=1.0)
        self._pump.cancel()
        return returncode

    def signal(self, signum: signal.Signals) -> None:
        """Sends `signum` to the process; SIGKILL also to all that it has started. Does nothing after its end."""
        if self._child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if signum is signal.SIGKILL:
                os.killpg(self._child.pid, signum)
            else:
                self._child.send_signal(signum)

    async def _read(self, output: io.FileIO) -> None:
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), output
        )
        level = logging.WARNING  # what a process says before its logging is set up is worth a look
        try:
            while line := await self._line(reader):
                level = level_of(line, level)
                text = line.rstrip("\n")
                self._log.emit(logging.makeLogRecord({"msg": text}))
                self.tail.append((text, self._show(level, text)))
        finally:
            transport.close()
            self._log.close()

    @staticmethod
    async def _line(reader: asyncio.StreamReader) -> str:
        """The next line with its end; empty at the end of the output."""
        try:
            return (await reader.readline()).decode(errors="replace")
        except ValueError:  # a line over LINE_BYTES; what was read of it is gone
            return "(a line too long to keep)\n"

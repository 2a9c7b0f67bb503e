"""What `ps` shows of a process."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_ARG_START, _ARG_END = 45, 46
"""Fields of /proc/PID/stat, counted from the one behind the name: where the command line lies in memory."""


def set_title(argv: Sequence[str]) -> None:
    """Puts `argv` in place of this process's command line, as much of it as fits. Linux only; else does nothing.

    The program's path is cut to its name, so that what it runs is not what gets lost.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    except (OSError, IndexError, ValueError):
        return
    if not 0 < start < end:  # the system does not tell
        return
    room = end - start
    text = "\0".join([os.path.basename(argv[0]), *argv[1:]])
    ctypes.memmove(start, os.fsencode(text)[: room - 1].ljust(room, b"\0"), room)

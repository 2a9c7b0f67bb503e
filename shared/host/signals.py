"""The signals that ask a process to end."""

import asyncio
import signal
from collections.abc import Callable

MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)
"""Ignored by who started us: a shell ignores SIGINT for what it runs in the background, `nohup` SIGHUP."""


def on_end_signals(end: Callable[[], None]) -> None:
    """Calls `end` in the running loop at each SIGTERM, SIGINT and SIGHUP, but for those that are ignored already."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    for signum in MAY_BE_IGNORED:
        if not is_ignored(signum):
            loop.add_signal_handler(signum, end)


def is_ignored(signum: signal.Signals) -> bool:
    return signal.getsignal(signum) is signal.SIG_IGN

"""The tasks that a service runs beside its mailbox."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from radixmesh.shared.errors import RadixMeshError

log = logging.getLogger(__name__)

_CANCEL_AGAIN = 0.5
"""Seconds after which a task that goes on in spite of its cancel is cancelled again."""


class Tasks:
    """Tasks until their end, each with a word in the log if it fails.

    Args:
        failed: told of the error of an essential one.
    """

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], *, essential: bool) -> asyncio.Task[Any]:
        """Runs `work` in the running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, essential))
        return task

    def cancel_too(self, task: asyncio.Task[Any]) -> None:
        """Cancels one more task with all others; what else comes of it is the caller's matter."""
        self._tasks.add(task)

    async def cancel(self) -> None:
        """Returns when all that run now have ended."""
        pending = tasks = set(self._tasks)
        while pending:  # a result that comes at the same moment as a cancel may hide it (`asyncio.wait_for`)
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any], essential: bool) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if essential:
            self._failed(error)
        elif not isinstance(error, RadixMeshError):
            log.error("a task failed", exc_info=error)
        else:
            log.warning("a task failed: %s", error)

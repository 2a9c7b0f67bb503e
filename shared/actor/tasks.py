"""Tasks that run beside what a process waits for, such as a service's mailbox."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from radixmesh.shared.errors import RadixMeshError

log = logging.getLogger(__name__)

_CANCEL_AGAIN = 0.5
"""Seconds after which a task that goes on in spite of its cancel is cancelled again."""


class Tasks:
    """Tasks until their end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(
        self, work: Coroutine[Any, Any, Any], failed: Callable[[BaseException], None] | None = None
    ) -> asyncio.Task[Any]:
        """Runs `work` in the running loop. Its error is told to `failed`, or else logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, failed or _log))
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

    def _done(self, task: asyncio.Task[Any], failed: Callable[[BaseException], None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failed(error)


def _log(error: BaseException) -> None:
    if isinstance(error, RadixMeshError):
        log.warning("a task failed: %s", error)
    else:
        log.error("a task failed", exc_info=error)

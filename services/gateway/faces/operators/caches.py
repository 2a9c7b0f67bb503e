"""Flushing the replicas' prefix caches, for benchmarks and for changed weights."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.errors import BusError, MessageError
from radixmesh.shared.messages import CacheFlushed, FlushCache, Presence
from radixmesh.shared.subjects import Subjects

TIMEOUT = 10.0
"""Seconds that a replica has to answer."""
_AGAIN = 0.2
"""Seconds between two looks at whether replicas are idle."""

Replicas = list[dict[str, Any]]


async def flush_caches(bus: Bus, subjects: Subjects, replicas: Sequence[Presence]) -> Replicas:
    """Asks every replica to forget its prefix cache, all at once.

    Returns:
        For each replica `replica`, and `pages_freed` with `pages_in_use` (pages of running requests stay), or `error`.
    """
    return list(await asyncio.gather(*(_flush(bus, subjects, replica.instance) for replica in replicas)))


async def when_idle(flush: Callable[[], Awaitable[Replicas]], timeout: float) -> Replicas:
    """What `flush` gives once no pages are in use, or at last after `timeout` seconds."""
    end = asyncio.get_running_loop().time() + timeout
    replicas = await flush()
    while any(replica.get("pages_in_use") for replica in replicas) and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(_AGAIN)
        replicas = await flush()
    return replicas


async def _flush(bus: Bus, subjects: Subjects, replica: str) -> dict[str, Any]:
    try:
        answer = await bus.request(subjects.replica_control(replica), FlushCache(), timeout=TIMEOUT)
    except (BusError, MessageError) as error:
        return {"replica": replica, "error": str(error)}
    if not isinstance(answer, CacheFlushed):
        return {"replica": replica, "error": f"it answered with {answer.TAG}"}
    return {"replica": replica, "pages_freed": answer.pages_freed, "pages_in_use": answer.pages_in_use}

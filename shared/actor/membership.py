"""A service's own place in the mesh: it tells of itself, and keeps its view of the others true to what it can hear."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nats.micro.service import Service, ServiceConfig

from radixmesh import __version__
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.messages import Outdated, WhoIsThere
from radixmesh.shared.presence.epochs import Epoch
from radixmesh.shared.presence.view import PresenceView, until_beat
from radixmesh.shared.subjects import Subjects


class Membership:
    """From the service's start on the bus to its end.

    Args:
        epoch: the service's own.
        members: its view of the others. Their heartbeats are put in by whoever hears them.
        beat: sends a heartbeat.
        spawn: runs something beside the mailbox.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        epoch: Epoch,
        members: PresenceView,
        beat: Callable[[], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, Any]], object],
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._epoch = epoch
        self._members = members
        self._beat = beat
        self._spawn = spawn
        bus.on_reconnect.append(self._after_reconnect)
        members.on_outdated.append(self._tell_outdated)

    async def ask(self) -> None:
        """Asks everyone to tell of themselves now. Raises BusError."""
        await self._bus.publish(self._subjects.who, WhoIsThere())

    async def keep_beating(self, interval: float, host: str) -> None:
        """Beats once in `interval` seconds, with all services of `host`, and misses those who do not. Never returns."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + until_beat(time.time(), interval, host)
            if self._bus.connected:
                await self._beat()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if loop.time() - due > interval:  # we were asleep or starved: the others may have spoken meanwhile
                self._members.forgive()
                self._epoch.was_away()
            if not self._bus.connected:  # who cannot be heard is not silent
                self._members.forgive()
            self._members.expire()

    async def _after_reconnect(self) -> None:
        self._members.doubt()
        self._epoch.was_away()
        await self.ask()
        await self._beat()

    def _tell_outdated(self, news: Outdated) -> None:
        self._spawn(self._bus.publish(self._subjects.outdated(news.instance), news))


async def announce(bus: Bus, service: str, metadata: dict[str, str]) -> Service:
    """Registers with the NATS micro service protocol, for as long as the answer lives."""
    config = ServiceConfig(
        name=f"radixmesh-{service.replace('_', '-')}",
        version=__version__,
        description=f"RadixMesh {service}",
        metadata=metadata,
    )
    registered = Service(bus.client, config)
    await registered.start()
    return registered

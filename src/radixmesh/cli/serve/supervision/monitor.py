"""What the supervisor knows of its children from the bus, and what it tells about them."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from radixmesh.cli.serve.planning.plan import ProcessSpec
from radixmesh.shared.actor.tasks import Tasks
from radixmesh.shared.bus.connection import Bus, without_credentials
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import MessageError
from radixmesh.shared.messages import Outdated, Presence, State, WhoIsThere
from radixmesh.shared.presence.epochs import now_epoch
from radixmesh.shared.presence.view import PresenceView
from radixmesh.shared.subjects import Subjects

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds of silence before people are told that we wait for the bus."""

LOADERS = ("model_worker", "tokenizer")
"""Services that load something before they can say that they are up."""


class MeshMonitor:
    """The bus as the supervisor sees it.

    Every death is known to the supervisor first. It tells the others at once, so that nobody waits for missing
    heartbeats.
    """

    def __init__(self, bus: Bus, subjects: Subjects, instances: Collection[str]) -> None:
        """`instances`: our children; on a shared bus there are others, which are none of our business."""
        self.members = PresenceView()
        self._instances = frozenset(instances)
        self._bus = bus
        self._subjects = subjects
        self._up_since: dict[str, float] = {}
        self.members.on_change.append(self._note)
        self.members.on_outdated.append(self._tell_outdated)
        self._tasks = Tasks()

    @classmethod
    async def connect(
        cls, settings: ServiceSettings, instances: Collection[str], say: Callable[[str], None]
    ) -> "MeshMonitor":
        """`say` tells people what is waited for when that takes long. Raises BusError."""
        text = f"waiting for NATS at {without_credentials(settings.nats_url)} ..."
        telling = asyncio.get_running_loop().call_later(PATIENCE, say, text)
        try:
            bus = await Bus.connect(settings, "radixmesh-serve")
        finally:
            telling.cancel()
        mesh = cls(bus, Subjects(settings.namespace), instances)
        await mesh._bus.subscribe(mesh._subjects.presence(), mesh._heard)
        mesh._bus.on_reconnect.append(mesh.ask)
        return mesh

    async def ask(self) -> None:
        """Asks everyone to tell of themselves now."""
        await self._bus.publish(self._subjects.who, WhoIsThere())

    async def tell_gone(self, spec: ProcessSpec) -> None:
        """Tells everyone that `spec`'s process has died, and forgets how long it was up. Raises BusError."""
        self._up_since.pop(spec.instance, None)
        known = self.members.get(spec.instance)
        epoch = max(now_epoch(), known.epoch if known is not None else 0)
        gone = Presence(service=spec.service, instance=spec.instance, epoch=epoch, state=State.GONE)
        self.members.update(gone)
        await self._bus.publish(self._subjects.presence(spec.service), gone)

    def up_for(self, instance: str) -> float | None:
        """Seconds since `instance` came up; None if it has not. Still known after its end, until `tell_gone`."""
        since = self._up_since.get(instance)
        return None if since is None else time.monotonic() - since

    async def close(self) -> None:
        await self._bus.close()

    def _heard(self, envelope: Envelope) -> None:
        try:
            message = envelope.unpack()
        except MessageError as error:
            log.warning("dropped a message on %s: %s", envelope.subject, error)
            return
        if isinstance(message, Presence) and message.instance in self._instances:
            self.members.update(message)

    def _tell_outdated(self, news: Outdated) -> None:
        self._tasks.spawn(self._bus.publish(self._subjects.outdated(news.instance), news))

    def _note(self, _before: Presence | None, now: Presence | None) -> None:
        # One that ends in order says that it is gone before its process ends, and only then are we asked `up_for`.
        if now is not None and is_up(now):
            self._up_since.setdefault(now.instance, time.monotonic())


def is_up(member: Presence) -> bool:
    """Whether its own start is behind it; it may still wait for others, which it then tells in `detail`."""
    waits = member.state is State.STARTING and bool(member.detail) and member.service not in LOADERS
    return member.state is State.READY or waits

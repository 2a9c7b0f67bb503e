"""What the supervisor knows of its children from a real bus, and how it waits for one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from radixmesh.cli.serve.planning.plan import ProcessSpec
from radixmesh.cli.serve.supervision import monitor
from radixmesh.cli.serve.supervision.backoff import Backoff
from radixmesh.cli.serve.supervision.monitor import MeshMonitor
from radixmesh.shared.bus.connection import Bus, without_credentials
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.messages import Outdated, Presence, State
from radixmesh.shared.presence.epochs import now_epoch
from radixmesh.shared.presence.view import PresenceView
from radixmesh.shared.subjects import Subjects
from tests.support import NatsServer, until

SPEC = ProcessSpec("gateway", "gateway-1", ("true",))


class Child:
    """Says what a service says of itself from its start to its end."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subject = subjects.presence("gateway")
        self.epoch = now_epoch()

    async def says(self, state: State) -> None:
        presence = Presence(service="gateway", instance="gateway-1", epoch=self.epoch, state=state)
        await self._bus.publish(self._subject, presence)


@pytest.fixture
async def mesh(settings: ServiceSettings) -> AsyncIterator[MeshMonitor]:
    mesh = await MeshMonitor.connect(settings, ["gateway-1"], print)
    yield mesh
    await mesh.close()


@pytest.fixture
async def child(settings: ServiceSettings) -> AsyncIterator[Child]:
    bus = await Bus.connect(settings, "child")
    yield Child(bus, Subjects(settings.namespace))
    await bus.close()


async def test_orderly_ends_of_one_that_served_are_no_failed_starts(mesh: MeshMonitor, child: Child) -> None:
    """A service says that it is gone before its process ends; the supervisor asks only then how long it was up."""
    backoff = Backoff(healthy=0.0)
    for _ in range(4):
        child.epoch = now_epoch()
        await child.says(State.READY)
        await until(lambda: mesh.members.get("gateway-1"))
        await child.says(State.GONE)
        await until(lambda: not mesh.members.get("gateway-1"))
        assert backoff.died(mesh.up_for("gateway-1")) == backoff.first
        await mesh.tell_gone(SPEC)
    assert not backoff.hopeless


async def test_the_time_that_one_was_up_is_not_the_next_ones(mesh: MeshMonitor, child: Child) -> None:
    await child.says(State.READY)
    await until(lambda: mesh.up_for("gateway-1"))
    await mesh.tell_gone(SPEC)
    child.epoch = now_epoch()
    await child.says(State.STARTING)
    await until(lambda: mesh.members.get("gateway-1"))
    assert mesh.up_for("gateway-1") is None


async def test_a_death_is_heeded_though_the_clock_was_set_back(
    mesh: MeshMonitor, child: Child, settings: ServiceSettings
) -> None:
    """What the supervisor tells covers its child's last epoch; the next child hears that it must go above that."""
    others, told = PresenceView(), list[Outdated]()

    def heard(envelope: Envelope) -> None:
        message = envelope.unpack()
        others.update(message) if isinstance(message, Presence) else told.append(message)  # type: ignore[arg-type]

    subjects, bus = Subjects(settings.namespace), await Bus.connect(settings, "another")
    await bus.subscribe(subjects.presence("gateway"), heard)
    await bus.subscribe(subjects.outdated("gateway-1"), heard)
    await bus.flush()
    child.epoch = ahead = now_epoch() + 7200 * 10**6
    await child.says(State.READY)
    await until(lambda: mesh.members.get("gateway-1") and others.get("gateway-1"))
    await mesh.tell_gone(SPEC)
    await until(lambda: others.get("gateway-1") is None)
    child.epoch = now_epoch()
    await child.says(State.STARTING)
    await until(lambda: told)
    assert told == [Outdated(instance="gateway-1", epoch=ahead)]
    await bus.close()


async def test_people_are_told_of_a_long_wait_for_the_bus(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "PATIENCE", 0.02)
    server, said = NatsServer(), list[str]()
    away = settings.model_copy(update={"nats_url": f"nats://me:secret@127.0.0.1:{server.port}"})
    connecting = asyncio.create_task(MeshMonitor.connect(away, [], said.append))
    await until(lambda: said)
    server.start()
    try:
        await (await connecting).close()
    finally:
        server.stop()
    assert said == [f"waiting for NATS at nats://127.0.0.1:{server.port} ..."]


async def test_a_bus_that_answers_is_no_news(settings: ServiceSettings) -> None:
    said: list[str] = []
    await (await MeshMonitor.connect(settings, [], said.append)).close()
    assert said == []


def test_credentials_are_left_out_of_what_people_are_told() -> None:
    urls = "nats://me:p@ss@host:4222,token@other,tls://third:1"
    assert without_credentials(urls) == "nats://host:4222,other,tls://third:1"

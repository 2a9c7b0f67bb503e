"""Fixtures that every test may use: a real nats-server and a namespace of one's own on it."""

import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from radixmesh.shared.config import ServiceSettings
from tests.support import NatsServer

# How long an example takes is the machine's affair: a machine that others use too has failed a test of microseconds.
hypothesis.settings.register_profile("radixmesh", deadline=None)
hypothesis.settings.load_profile("radixmesh")


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    server = NatsServer()
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def namespace() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def settings(nats_url: str, namespace: str) -> ServiceSettings:
    """Bus settings for a test's own clients and fake services."""
    return ServiceSettings(nats_url=nats_url, namespace=namespace, heartbeat_interval=0.2, log_format="text")

"""Fixtures that every test may use: a real nats-server and a namespace of one's own on it."""

import signal
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from radixmesh.shared.config import ServiceSettings
from tests.support import NatsServer

pytest_plugins = ["tests.guard"]

# A shell's `&`, and nohup, have their children ignore signals, and these theirs; tests send them.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)

# How long an example takes is the machine's affair: a machine that others use too has failed a test of microseconds.
hypothesis.settings.register_profile("radixmesh", deadline=None)
hypothesis.settings.load_profile("radixmesh")


@pytest.fixture(scope="session")
def processes() -> None:
    """For fixtures that start a process or open a connection: whoever uses one is marked `processes` (see guard.py)."""


@pytest.fixture(scope="session")
def nats_url(processes: None) -> Iterator[str]:
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

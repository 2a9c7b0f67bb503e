"""Quick tests are held to what they are."""

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests import guard

ACTS: list[Callable[[], object]] = [
    lambda: subprocess.run(["true"]),  # noqa: S607
    lambda: os.system("true"),  # noqa: S605, S607
    lambda: socket.create_connection(("127.0.0.1", 9)),
]


@pytest.mark.parametrize("act", ACTS)
def test_a_quick_test_starts_no_process_and_opens_no_connection(act: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="is to be marked `processes`"):
        act()
    guard.forget()


@pytest.mark.parametrize("act", ACTS)
def test_one_whose_error_is_caught_fails_nevertheless(
    act: Callable[[], object], request: pytest.FixtureRequest
) -> None:
    caught = pytest.raises(pytest.fail.Exception, match="is to be marked `processes`")
    with caught, guard.watched(request.node), suppress(AssertionError):
        act()
    guard.forget()


@pytest.mark.processes
def test_the_others_may() -> None:
    subprocess.run(["true"], check=True)  # noqa: S607


def test_whoever_uses_a_bus_is_marked(request: pytest.FixtureRequest) -> None:
    marked = {item.name for item in request.session.items if item.get_closest_marker("processes")}
    assert {item.name for item in request.session.items if "nats_url" in getattr(item, "fixturenames", ())} <= marked

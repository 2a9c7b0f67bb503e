"""Keeps the quick tests quick: a test that is not marked `processes` may start none and open no connection.

Tests whose fixtures ask for the fixture `processes` (`nats_url` does) are marked by that; the others say it themselves,
by `pytest.mark.processes` or, for a whole file, `pytestmark`. One that says nothing fails at its first process or
socket, whichever command runs it.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_EVENTS = {
    *("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn"),
    *("socket.bind", "socket.connect", "socket.sendto", "socket.getaddrinfo"),
}
_COMPILERS = {"c++", "g++", "clang++"}
"""May be started by any test: they build the kernels once, and leave them in the cache for all."""

_watched = False
_seen: list[str] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if not _watched or event not in _EVENTS:
        return
    if event == "subprocess.Popen" and Path(str(args[1][0])).name in _COMPILERS:
        return
    _seen.append(f"{event}{args[:2]}")
    raise AssertionError(f"{_seen[-1]}: a test that does so is to be marked `processes`")


def forget() -> None:
    """For tests of this file: what they did on purpose."""
    _seen.clear()


@contextmanager
def watched(item: pytest.Item) -> Iterator[None]:
    """Fails if what runs in the block does what `item` is not marked for."""
    global _watched
    _watched = item.get_closest_marker("processes") is None
    _seen.clear()
    try:
        yield
    finally:
        _watched = False
    if _seen:  # and the error was caught by whatever was tested
        pytest.fail(f"{_seen[0]}: a test that does so is to be marked `processes`")


def pytest_configure() -> None:
    sys.addaudithook(_audit)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "processes" in getattr(item, "fixturenames", ()):
            item.add_marker("processes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, T, T]:
    with watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, T, T]:
    with watched(item):
        return (yield)

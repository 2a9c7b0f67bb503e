"""What `health` and `ps` share: where the bus is, and who answers on it."""

import argparse
import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from radixmesh.cli.serve.supervision import state
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ConfigError, MessageError
from radixmesh.shared.messages import Presence, WhoIsThere
from radixmesh.shared.subjects import Subjects

MAX_WAIT = 3600.0
"""Seconds."""


def add_bus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nats-url", help="default: $RADIXMESH_NATS_URL")
    parser.add_argument("--namespace", help="default: $RADIXMESH_NAMESPACE, or radixmesh")
    parser.add_argument("--state-file", help="of a running `radixmesh serve`, which knows the way to its bus")
    parser.add_argument(
        "--timeout", type=_seconds, default=3.0, metavar="S", help="seconds to wait (default: %(default)g)"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to {MAX_WAIT:g}")
    return value


def bus_settings(args: argparse.Namespace) -> ServiceSettings:
    """Settings of the bus from flags, else a state file, else the environment.

    Raises:
        ConfigError: a setting is wrong, or the state file is not there or none.
    """
    given: dict[str, Any] = _from_state_file(args.state_file) if args.state_file else {}
    given |= {key: value for key in ("nats_url", "namespace") if (value := getattr(args, key)) is not None}
    return ServiceSettings.checked(given)


def _from_state_file(path: str) -> dict[str, Any]:
    try:
        found = state.read(path)
    except OSError as error:
        raise ConfigError(f"--state-file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--state-file {path}: {error}") from None
    if not isinstance(found.get("nats_url"), str):
        raise ConfigError(f"--state-file {path}: is not the state of a `radixmesh serve`")
    return {key: found[key] for key in ("nats_url", "namespace", "nats_token") if found.get(key)}


@asynccontextmanager
async def presences(settings: ServiceSettings, timeout: float) -> AsyncIterator[AsyncIterator[Presence]]:
    """Asks who is there; gives the answers as they come, for `timeout` seconds.

    Raises:
        BusError: no NATS server answered within `timeout`.
    """
    deadline = time.monotonic() + timeout
    inbox: asyncio.Queue[Envelope] = asyncio.Queue()
    subjects = Subjects(settings.namespace)
    bus = await Bus.connect(settings, "radixmesh-cli", timeout=timeout)
    try:
        await bus.subscribe(subjects.presence(), inbox.put_nowait)
        await bus.publish(subjects.who, WhoIsThere())
        yield _until(inbox, deadline)
    finally:
        await bus.close()


async def _until(inbox: asyncio.Queue[Envelope], deadline: float) -> AsyncIterator[Presence]:
    while (left := deadline - time.monotonic()) > 0:
        try:
            envelope = await asyncio.wait_for(inbox.get(), left)
        except TimeoutError:
            return
        try:
            message = envelope.unpack()
        except MessageError:  # someone speaks another version; their health is not for us to tell
            continue
        if isinstance(message, Presence):
            yield message

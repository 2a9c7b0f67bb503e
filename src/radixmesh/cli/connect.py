"""The way to the bus for commands that people wait for."""

import asyncio
import re
from collections.abc import Callable

from radixmesh.shared.bus import Bus
from radixmesh.shared.config import ServiceSettings

PATIENCE = 2.0
"""Seconds of silence before people are told what is waited for."""


async def connect(settings: ServiceSettings, name: str, say: Callable[[str], None], *, timeout: float = 30.0) -> Bus:
    """`Bus.connect`, which `say`s what it waits for when that takes long.

    Raises:
        BusError: no server answered within `timeout` seconds, or it refused the credentials.
    """
    text = f"waiting for NATS at {without_credentials(settings.nats_url)} ..."
    telling = asyncio.get_running_loop().call_later(PATIENCE, say, text)
    try:
        return await Bus.connect(settings, name, timeout=timeout)
    finally:
        telling.cancel()


def without_credentials(urls: str) -> str:
    """`urls`, one or several with commas between, less the user names and passwords before an @."""
    return re.sub(r"[^/,]*@", "", urls)

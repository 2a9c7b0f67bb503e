"""Does the mesh serve? Asked of its front door."""

import asyncio

POLL = 0.03
"""Seconds between two looks."""

ANSWER = 5.0
"""Seconds a gateway may take to answer."""


async def until_ready(host: str, port: int) -> None:
    """Returns once ``GET /ready`` there is answered with 200."""
    while not await is_ready(host, port):  # noqa: ASYNC110  no event of ours tells what the front door answers
        await asyncio.sleep(POLL)


async def is_ready(host: str, port: int) -> bool:
    """One look. A bare request: a client library would take longer to import than the mesh takes to start."""
    try:
        async with asyncio.timeout(ANSWER):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split(b" ")[1:2] == [b"200"]

"""`radixmesh ps`: a table of the mesh."""

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from radixmesh.shared.errors import ConfigError

if TYPE_CHECKING:
    from radixmesh.shared.messages import Presence

SETTLED = 0.5
"""Seconds of silence after which everyone is taken to have answered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from radixmesh.cli.mesh import add_bus_arguments

    add_bus_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 if anybody is there, else 1."""
    _find_the_bus(args)
    members = asyncio.run(_collect(args))
    if not members:
        print("nobody is there")
        return 1
    print(table(members))
    return 0


def _find_the_bus(args: argparse.Namespace) -> None:
    """With nothing said about the bus: the one of the `radixmesh serve` that runs here."""
    import os

    from radixmesh.cli.serve.supervision import state

    if args.nats_url or args.state_file or os.environ.get("RADIXMESH_NATS_URL"):
        return
    running = state.running()
    if len(running) > 1:
        listed = ", ".join(str(path) for path in running)
        raise ConfigError(f"several `radixmesh serve` run here; choose one by --state-file: {listed}")
    if running:
        args.state_file = str(running[0])


async def _collect(args: argparse.Namespace) -> "list[Presence]":
    from radixmesh.cli.mesh import bus_settings, presences

    members: dict[str, Presence] = {}
    async with presences(bus_settings(args), args.timeout) as found:
        try:
            while True:
                member = await asyncio.wait_for(anext(found), SETTLED if members else args.timeout)
                members.setdefault(member.instance, member)
        except (TimeoutError, StopAsyncIteration):
            return list(members.values())


def table(members: "list[Presence]") -> str:
    """One line for each member, under a heading."""
    rows = [("SERVICE", "INSTANCE", "STATE", "MODEL", "HOST", "PID", "LOAD")]
    for member in sorted(members, key=lambda member: (member.service, member.instance)):
        state = f"{member.state.value} ({member.detail})" if member.detail else member.state.value
        pid = str(member.attributes.get("pid", ""))
        rows.append((member.service, member.instance, state, member.model, member.host, pid, load(member.attributes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def load(attributes: dict[str, Any]) -> str:
    """A member's load in a few words, from its presence attributes."""
    words = [f"{attributes[key]} {key}" for key in ("running", "waiting") if key in attributes]
    if attributes.get("num_pages"):
        used = attributes["num_pages"] - attributes.get("free_pages", 0)
        words.append(f"{used}/{attributes['num_pages']} pages")
    if "progress" in attributes and attributes["progress"] < 1:
        words.append(f"loading {attributes['progress']:.0%}")
    if attributes.get("claimed_by"):
        words.append(f"works for {attributes['claimed_by']}")
    return ", ".join(words)

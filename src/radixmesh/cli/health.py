"""`radixmesh health SERVICE`: for the health checks of containers."""

import argparse
import asyncio
import socket

from radixmesh.cli.services import SERVICES, service_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from radixmesh.cli.mesh import add_bus_arguments

    parser.add_argument("service", metavar="SERVICE", type=service_name, help=", ".join(SERVICES))
    parser.add_argument("--host", default=socket.gethostname(), help="where it runs (default: this host, %(default)s)")
    add_bus_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 if a ready member of the service is on the host, else 1."""
    healthy, text = asyncio.run(_check(args))
    print(text)
    return 0 if healthy else 1


async def _check(args: argparse.Namespace) -> tuple[bool, str]:
    from radixmesh.cli.mesh import bus_settings, presences
    from radixmesh.shared.messages import State

    answer = f"no {args.service} on {args.host} answers"
    async with presences(bus_settings(args), args.timeout) as found:
        async for member in found:
            if member.service != args.service or member.host != args.host:
                continue
            answer = f"{member.instance}: {member.state.value} {member.detail}".rstrip()
            if member.state is State.READY:
                return True, answer
    return False, answer

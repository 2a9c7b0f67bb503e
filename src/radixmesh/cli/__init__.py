"""The `radixmesh` command.

    serve     a whole mesh on this machine, supervised
    run       one service
    bench     load an OpenAI-compatible server
    health    is a service on this host ready? (for container health checks)
    ps        who is in the mesh
    version

Each subcommand lives in a module with `add_arguments(parser)` and `run(args) -> exit status`, which is imported only
when it is the one asked for, so that ``radixmesh --help`` costs next to nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from radixmesh.shared.errors import ConfigError, RadixMeshError

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("radixmesh.cli.serve.command", "start a whole mesh on this machine and look after it"),
    "run": ("radixmesh.cli.run", "start one service"),
    "bench": ("radixmesh.bench.command", "load an OpenAI-compatible server and measure it"),
    "health": ("radixmesh.cli.health", "tell by the exit status whether a service on this host is ready"),
    "ps": ("radixmesh.cli.ps", "list the members of the mesh"),
    "version": ("radixmesh.cli.version", "print the version"),
}
"""Subcommand: (module, help)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns the exit status: 2 for wrong usage, 1 for a failure, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="radixmesh", description="Serve language models as a mesh of services.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if arguments[:1] == [name]:
            import_module(module).add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        status: int = import_module(COMMANDS[args.command][0]).run(args)
    except RadixMeshError as error:
        print(f"radixmesh {args.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
    return status

"""`radixmesh run SERVICE [flags]`: one service in this very process."""

import argparse
import runpy
import sys

from radixmesh.cli.services import SERVICES, service_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", metavar="SERVICE", type=service_name, help=", ".join(SERVICES))
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="the service's own; see radixmesh run SERVICE --help")


def run(args: argparse.Namespace) -> int:
    """Becomes ``python -m radixmesh.services.SERVICE``, without a second interpreter."""
    sys.argv[1:] = args.flags
    runpy.run_module(f"radixmesh.services.{args.service}", run_name="__main__", alter_sys=True)
    return 0

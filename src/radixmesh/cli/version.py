"""`radixmesh version`."""

import argparse

from radixmesh import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags."""


def run(_args: argparse.Namespace) -> int:
    print(f"radixmesh {__version__}")
    return 0

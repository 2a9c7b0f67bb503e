"""`radixmesh version`."""

import argparse
from importlib.metadata import PackageNotFoundError, version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No flags."""


def run(_args: argparse.Namespace) -> int:
    """Prints the version of the installed package."""
    try:
        print(f"radixmesh {version('radixmesh')}")
    except PackageNotFoundError:
        print("radixmesh (not installed; run from its sources)")
    return 0

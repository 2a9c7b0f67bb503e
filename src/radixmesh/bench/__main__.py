"""`python -m radixmesh.bench`."""

import argparse
import sys

from radixmesh.bench.command import add_arguments, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="radixmesh bench", description="Load an OpenAI-compatible server.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

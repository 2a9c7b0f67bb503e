"""`python -m radixmesh.cli`."""

from radixmesh.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

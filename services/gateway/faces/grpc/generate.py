"""Writes `radixmesh_pb2.py`, its `.pyi` and `radixmesh_pb2_grpc.py` anew from `radixmesh.proto`.

Run it as ``python services/gateway/faces/grpc/generate.py`` with ``grpcio-tools==1.72.*`` installed: generated code
refuses runtimes older than its generator, so the generator is one that writes for protobuf 6.30, the oldest release
that pyproject.toml allows.
"""

import sys
from pathlib import Path

from grpc_tools import protoc

SOURCES = Path(__file__).resolve().parents[4] / "src"
PROTO = "radixmesh/services/gateway/faces/grpc/radixmesh.proto"
"""Relative to SOURCES: imports in the generated code follow this path."""


def main() -> int:
    """Gives the compiler's exit status."""
    flags = [f"-I{SOURCES}", *(f"--{kind}_out={SOURCES}" for kind in ("python", "pyi", "grpc_python"))]
    status: int = protoc.main(["protoc", *flags, PROTO])
    return status


if __name__ == "__main__":
    sys.exit(main())

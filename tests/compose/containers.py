"""Runs the services of compose.yaml as processes: their own commands and environments, without Docker.

What a container engine would do is done by substitution: host names become loopback, each container's ports become
free ones, and paths of mounted volumes become the host's. A service sees nothing of our environment but PATH and HOME.
"""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from radixmesh.cli.serve.host.machine import free_port
from tests.compose.compose_file import ROOT

PORTS = ("4222", "8222", "8000", "50051")


@dataclass
class Containers:
    """The services of one compose file."""

    services: dict[str, Any]
    directory: Path
    """For logs and home directories."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    port: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in PORTS})

    def start(self, name: str) -> None:
        command = self._words(name, self.services[name]["command"])
        with (self.directory / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self._program(name, command), env=self._environ(name), stdout=log, stderr=log, cwd=self.directory
            )

    def healthy(self, name: str) -> bool:
        """Runs the service's own health check."""
        test = self.services[name]["healthcheck"]["test"]
        assert test[0] == "CMD"
        done = subprocess.run(
            self._program(name, self._words(name, test[1:])), env=self._environ(name), capture_output=True, timeout=60
        )
        return done.returncode == 0

    def stop(self) -> dict[str, int]:
        """Ends all in the order of `docker compose down`; gives the exit statuses."""
        ended = {}
        for name in reversed(list(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                ended[name] = process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                ended[name] = process.wait()
        return ended

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-4000:]}" for path in self.directory.glob("*.log"))

    def _program(self, name: str, words: list[str]) -> list[str]:
        """The command with programs of the image replaced by those of this environment."""
        if words[0].startswith("-"):  # the image of NATS puts its own program first
            assert name == "nats"
            return [str(Path(sys.executable).with_name("nats-server")), *words]
        if words[0] == "wget":  # in the image of NATS; a test machine may have none
            code = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"
            return [sys.executable, "-c", code, words[-1]]
        assert words[0] == "radixmesh", words
        return [sys.executable, "-m", "radixmesh.cli", *words[1:]]

    def _environ(self, name: str) -> dict[str, str]:
        given = self.services[name].get("environment", {})
        words = dict(zip(given, self._words(name, list(given.values())), strict=True))
        return {"PATH": os.environ["PATH"], "HOME": str(self.directory), **words}

    def _words(self, name: str, words: list[str]) -> list[str]:
        return [self._outside(name, word) for word in words]

    def _outside(self, name: str, word: str) -> str:
        """A word as it reads outside of the container."""
        for volume in self.services[name].get("volumes", ()):
            source, target = volume.split(":")[:2]
            if source.startswith((".", "/")) and word.startswith(target):
                word = str((ROOT / source).resolve()) + word.removeprefix(target)
        if word in self.port:
            return str(self.port[word])
        word = word.replace("nats://nats:", "nats://127.0.0.1:").replace("0.0.0.0", "127.0.0.1")
        for inside, outside in self.port.items():
            word = word.replace(f"127.0.0.1:{inside}", f"127.0.0.1:{outside}")
        return word

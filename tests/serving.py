"""`ServeProcess`: a whole mesh of real processes for a test.

    with ServeProcess("--replicas", "2") as mesh:
        client = openai.OpenAI(base_url=mesh.url + "/v1", api_key="none")
        mesh.kill("tokenizer-0")

It runs ``python -P -m radixmesh.cli serve`` on free ports with a state directory of its own. If the ``with`` block
fails, the output of the supervisor and the ends of all logs are printed, so that pytest shows them.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

STARTED = 120.0
"""Seconds a mesh may take to serve, on a busy machine."""

LOG_TAIL = 6000
"""Characters of each log that are printed after a failure."""


class ServeProcess:
    """One `radixmesh serve`."""

    def __init__(
        self,
        *flags: str,
        environ: dict[str, str] | None = None,
        wait: bool = True,
        timeout: float = STARTED,
        cwd: Path | None = None,
        wrapper: Sequence[str] = (),
        own_log_dir: bool = True,
    ) -> None:
        """
        Args:
            flags: of `radixmesh serve`; ports, log directory and state file are added.
            environ: added to the environment.
            wait: until the gateway is ready, when entered.
            cwd: where it is called; by default where the tests are.
            wrapper: a command that runs the command line which follows it, with the environment.
            own_log_dir: give it a log directory; otherwise it chooses one.
        """
        self._directory = tempfile.TemporaryDirectory(prefix="radixmesh-test-")
        self.directory = Path(self._directory.name)
        self.log_dir = self.directory / "logs"
        self._state_file = self.directory / "state.json"
        self._output = self.directory / "output"
        self._flags = flags
        self._environ = environ or {}
        self._cwd = cwd
        self._wrapper = wrapper
        self._own_log_dir = own_log_dir
        self._wait = wait
        self._timeout = timeout
        self.process: subprocess.Popen[bytes]

    # -- life --

    def __enter__(self) -> Self:
        self.start()
        if self._wait:
            try:
                self.wait_ready(self._timeout)
            except BaseException:
                self._fail()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail()
        else:
            self.stop()
            self._directory.cleanup()

    def start(self) -> None:
        """Starts it, and does not wait."""
        places = ["--state-file", str(self._state_file)]
        places += ["--log-dir", str(self.log_dir)] if self._own_log_dir else []
        ports = ("--port", "0", "--grpc-port", "0")  # a later flag of the test's own wins
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-P", "-m", "radixmesh.cli", "serve", *ports, *places, *self._flags],
                cwd=self._cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self._environ},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_ready(self, timeout: float = STARTED) -> None:
        """Waits until the gateway answers /ready with 200. Raises AssertionError."""
        wait_for(self.ready, timeout, "the mesh to be ready", alive=self.process)

    def stop(self, signum: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Ends it with `signum`, in order; gives its exit status. Does nothing if it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout)

    def _fail(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        print(f"--- radixmesh serve {' '.join(self._flags)} (exit status {self.process.returncode})")
        for path in [self._output, *sorted(self.log_dir.glob("*.log"))]:
            print(f"--- {path.name}\n{path.read_text(errors='replace')[-LOG_TAIL:]}")
        self._directory.cleanup()

    # -- what it tells --

    @property
    def output(self) -> str:
        """What it has printed so far, standard output and standard error together."""
        return self._output.read_text(errors="replace")

    def log(self, instance: str) -> str:
        """What has reached the log of `instance` so far; it comes through the supervisor, a little later."""
        return (self.log_dir / f"{instance}.log").read_text(errors="replace")

    @property
    def state(self) -> dict[str, Any]:
        """The state file's content; empty as long as there is none."""
        try:
            found: dict[str, Any] = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    @property
    def url(self) -> str:
        """Of the first gateway, without ``/v1``."""
        url: str = self.state["urls"][0]
        return url

    @property
    def grpc(self) -> str:
        """``host:port`` of the first gateway."""
        address: str = self.state["grpc"][0]
        return address

    @property
    def model(self) -> str:
        name: str = self.state["model"]
        return name

    @property
    def bus_environ(self) -> dict[str, str]:
        """Environment with which a service, or `radixmesh ps`, finds this mesh's bus."""
        state = self.state
        return {
            "RADIXMESH_NATS_URL": state["nats_url"],
            "RADIXMESH_NATS_TOKEN": state["nats_token"] or "",
            "RADIXMESH_NAMESPACE": state["namespace"],
        }

    def pids(self, service: str | None = None) -> dict[str, int]:
        """Process id by instance, of one service or of all."""
        return {
            item["instance"]: item["pid"]
            for item in self.state.get("processes", ())
            if service in (None, item["service"])
        }

    def ready(self) -> bool:
        """Whether the first gateway's /ready says so now."""
        if not self.state:
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=10) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:  # urllib's errors are OSErrors: not listening yet, or 503
            return False

    # -- what it suffers --

    def kill(self, instance: str, signum: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to one process; gives its pid."""
        pid = self.pids()[instance]
        os.kill(pid, signum)
        return pid

    def wait_restarted(self, instance: str, old_pid: int, timeout: float = STARTED) -> int:
        """Waits until `instance` runs as another process; gives its pid."""
        wait_for(
            lambda: self.pids().get(instance, old_pid) != old_pid,
            timeout,
            f"{instance} to be started again",
            alive=self.process,
        )
        return self.pids()[instance]


def wait_for(
    condition: Callable[[], bool],
    timeout: float,
    what: str,
    *,
    alive: "subprocess.Popen[bytes] | None" = None,
) -> None:
    """Waits for `condition`, as long as `alive` runs. Raises AssertionError, naming `what` was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if alive is not None and alive.poll() is not None:
            raise AssertionError(f"waited for {what}, but the process exited with {alive.returncode}")
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(0.05)


def all_gone(pids: list[int]) -> bool:
    """Whether none of these processes runs any more (a zombie that nobody has reaped does not run)."""
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True

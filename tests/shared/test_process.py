"""A service's process, from its flags to its exit status."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import free_port

SCHEDULER = [sys.executable, "-m", "radixmesh.services.scheduler"]


def test_sigterm_ends_a_service_that_still_waits_for_nats() -> None:
    flags = ["--nats-url", f"nats://user:secret@127.0.0.1:{free_port()}", "--log-format", "text"]
    with subprocess.Popen([*SCHEDULER, *flags], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()  # written once it has waited for a while
        assert "waiting for NATS at nats://127.0.0.1" in line
        assert "secret" not in line
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - began < 10  # and not the 30 s for which it would have gone on waiting


@contextmanager
def waiting(*wrapper: str) -> Iterator["subprocess.Popen[str]"]:
    """A scheduler that waits for NATS, so that its handlers are installed."""
    flags = ["--nats-url", f"nats://127.0.0.1:{free_port()}", "--log-format", "text"]
    with subprocess.Popen([*wrapper, *SCHEDULER, *flags], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "waiting for NATS" in process.stderr.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
def test_each_signal_that_asks_for_the_end_is_followed(signum: signal.Signals) -> None:
    with waiting() as process:
        process.send_signal(signum)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_so(ignored: signal.Signals) -> None:
    name = ignored.name.removeprefix("SIG")
    with waiting("/bin/sh", "-c", f"trap '' {name}; exec \"$@\"", "sh") as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        mask = int(status.partition("SigIgn:")[2].split()[0], 16)  # the kernel drops it, whenever it is sent
        assert mask >> (ignored - 1) & 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [(["--policy", "luck"], "--policy (RADIXMESH_POLICY)"), (["--namespace", "a b"], "--namespace")],
)
def test_wrong_settings_are_named_and_end_with_2(flags: list[str], complaint: str) -> None:
    done = subprocess.run([*SCHEDULER, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr

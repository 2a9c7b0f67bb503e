"""A service's process, from its flags to its exit status."""

import signal
import subprocess
import sys
import time

import pytest
from support import free_port

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


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [(["--policy", "luck"], "--policy (RADIXMESH_POLICY)"), (["--namespace", "a b"], "--namespace")],
)
def test_wrong_settings_are_named_and_end_with_2(flags: list[str], complaint: str) -> None:
    done = subprocess.run([*SCHEDULER, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr

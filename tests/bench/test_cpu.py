import os
import subprocess
import sys
import time

import pytest

from radixmesh.bench.figures.cpu import REST, TREE, CpuMeter
from radixmesh.bench.settings import BenchError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# A child burns 0.2 s and ends; then its parent waits for a line.
SCRIPT = """
import subprocess, sys
burn = "import time\\nwhile time.process_time() < 0.2: pass"
subprocess.run([sys.executable, "-c", burn])
print("burnt", flush=True)
input()
"""


def test_a_tree_keeps_what_its_ended_children_used() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        meter = CpuMeter((("parent", process.pid),), process.pid)
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        seconds = meter.read()
        process.communicate(b"\n", timeout=30)
    assert seconds[TREE] >= 0.15
    assert seconds[REST] == pytest.approx(seconds[TREE] - seconds["parent"])
    assert seconds[REST] >= 0.15


def test_a_process_with_threads_and_children_of_this_one() -> None:
    meter = CpuMeter((("me", os.getpid()),), os.getpid())
    before = meter.read()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = meter.read()
    assert after["me"] - before["me"] >= 0.05
    assert after[TREE] - before[TREE] >= 0.05


def test_a_process_that_does_not_exist() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait(timeout=30)
    with pytest.raises(BenchError, match=f"no process {process.pid}"):
        CpuMeter((("gone", process.pid),), None).read()


def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BenchError, match="Linux only"):
        CpuMeter((), 1)
    assert CpuMeter((), None).read() == {}

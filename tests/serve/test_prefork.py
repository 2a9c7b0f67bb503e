"""Children that are forked in advance: like fresh ones to everybody who looks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from radixmesh.cli.serve.children import prefork
from tests.support import free_port

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not prefork.SUPPORTED, reason="children are not forked in advance here"),
]

# A supervisor of one scheduler. It tells the child's pid, what was shown of it, and its exit status.
SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from radixmesh.cli.serve.planning.plan import ProcessSpec
from radixmesh.cli.serve.children.process import Process
from radixmesh.cli.serve.children.prefork import Preforked

MODULE = "radixmesh.services.scheduler"
FLAGS, BEFORE = sys.argv[2:], {before}

async def main(spec, preforked):
    waiting = preforked.take("r0")
    assert waiting is not None and preforked.take("r0") is None
    BEFORE(waiting)
    environ = {{"PATH": os.environ["PATH"], "RADIXMESH_LOG_FORMAT": "text", **{environ}}}
    show = lambda level, line: bool(print("shown", line, flush=True))
    process = await Process.start("r0", spec.argv, environ, Path(sys.argv[1]), show, waiting)
    print("pid", process.pid, waiting.pid, flush=True)
    print("exit", await process.wait(), len(process.tail), flush=True)

spec = ProcessSpec("scheduler", "r0", (sys.executable, "-m", MODULE, *FLAGS), {{"OMP_NUM_THREADS": "1"}})
preforked = Preforked()
if (service := preforked.fork([spec])) is not None:
    raise SystemExit(service.serve())
asyncio.run(main(spec, preforked))
"""


@contextmanager
def supervisor(
    log_dir: Path, *flags: str, environ: str = "{}", before: str = "lambda waiting: None"
) -> Iterator["subprocess.Popen[str]"]:
    code = SUPERVISOR.format(environ=environ, before=before)
    command = [sys.executable, "-c", code, str(log_dir), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: "subprocess.Popen[str]", wanted: str) -> list[str]:
    """Output up to the first line that begins with `wanted`; all of it and what went wrong if none does."""
    assert process.stdout is not None
    found: list[str] = []
    for line in process.stdout:
        found.append(line.rstrip("\n"))
        if line.startswith(wanted):
            return found
    assert process.stderr is not None
    raise AssertionError(f"{found}\n{process.stderr.read()}")


def pids(process: "subprocess.Popen[str]") -> tuple[int, int]:
    """Of the child that runs, and of the one that was forked in advance."""
    _, child, waiting = lines(process, "pid")[-1].split()
    return int(child), int(waiting)


def test_wrong_flags_end_it_with_2_and_its_last_words(tmp_path: Path) -> None:
    with supervisor(tmp_path, "--policy", "luck") as process:
        said = lines(process, "exit")
    assert said[-1] == "exit 2 1"
    assert any(line.startswith("shown radixmesh run scheduler: --policy (RADIXMESH_POLICY)") for line in said)
    assert "--policy" in (tmp_path / "r0.log").read_text()


def test_its_environment_is_the_one_it_is_given(tmp_path: Path) -> None:
    with supervisor(tmp_path, environ='{"RADIXMESH_POLICY": "chance"}') as process:
        said = lines(process, "exit")
    assert said[-1] == "exit 2 1"
    with supervisor(tmp_path, "--nats-url", f"nats://127.0.0.1:{free_port()}") as process:
        child, waiting = pids(process)
        assert child == waiting
        lines(process, "shown")  # it waits for NATS: by now it runs with what it was given
        command = psutil.Process(child).cmdline()
        assert " ".join(command).startswith("python -m radixmesh.services.scheduler")
        assert os.getsid(child) == child
        assert os.readlink(f"/proc/{child}/fd/0") == os.devnull
        assert os.readlink(f"/proc/{child}/fd/1") == os.readlink(f"/proc/{child}/fd/2")
        os.kill(child, signal.SIGTERM)
        assert lines(process, "exit")[-1].split()[1] == "0"


def test_a_signal_that_kills_it_is_its_exit_status(tmp_path: Path) -> None:
    with supervisor(tmp_path, "--nats-url", f"nats://127.0.0.1:{free_port()}") as process:
        child, _ = pids(process)
        os.kill(child, signal.SIGKILL)
        assert lines(process, "exit")[-1].split()[1] == "-9"


def test_it_ends_with_its_supervisor(tmp_path: Path) -> None:
    with supervisor(tmp_path, "--nats-url", f"nats://127.0.0.1:{free_port()}") as process:
        child = psutil.Process(pids(process)[0])
        process.kill()
        child.wait(20)


def test_one_that_died_while_it_waited_is_replaced_by_a_fresh_one(tmp_path: Path) -> None:
    before = "lambda waiting: (os.kill(waiting.pid, 9), os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT))"
    with supervisor(tmp_path, "--policy", "luck", before=before) as process:
        child, waiting = pids(process)
        assert child != waiting
        assert lines(process, "exit")[-1] == "exit 2 1"
    assert not psutil.pid_exists(waiting)


def test_an_order_that_is_too_long_for_a_pipe_goes_to_a_fresh_one(tmp_path: Path) -> None:
    with supervisor(tmp_path, "--policy", "luck", environ='{"LONG": "x" * 100_000}') as process:
        child, waiting = pids(process)
        assert child != waiting
        assert lines(process, "exit")[-1] == "exit 2 1"


def test_nothing_is_forked_beside_a_second_thread() -> None:
    code = (
        "import threading, sys; from radixmesh.cli.serve.planning.plan import ProcessSpec\n"
        "from radixmesh.cli.serve.children.prefork import Preforked\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "preforked = Preforked(); print(preforked.fork([ProcessSpec('scheduler', 'r0', ())]), preforked.take('r0'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "None None"


def test_a_worker_begins_what_comes_before_its_imports() -> None:
    code = (
        "import os, sys; from radixmesh.cli.serve.planning.plan import ProcessSpec\n"
        "from radixmesh.cli.serve.children.prefork import ForkedService\n"
        "orders, ours = os.pipe(); os.close(ours)\n"  # no order ever comes
        "argv = (sys.executable, '-m', 'radixmesh.services.model_worker')\n"
        "status = ForkedService(ProcessSpec('model_worker', 'w', argv), orders).serve()\n"
        "import nats.aio.transport as transport; print(status, 'torch' in sys.modules, transport.aiohttp)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "0 True None"  # without what it can do without: see `preload`

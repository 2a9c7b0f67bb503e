"""Temporary directories of processes that end in order, that are killed, and that live."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from radixmesh.shared.host.scratch import Scratch

HOLDER = (
    "from radixmesh.shared.host.scratch import Scratch\n"
    "scratch = Scratch('test')\n"
    "(scratch.path / 'file').write_text('kept')\n"
    "print(scratch.path, flush=True)\n"
    "input()\n"
)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder() -> "tuple[subprocess.Popen[str], Path]":
    """A process with a directory of its own."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_it_is_ours_alone_and_gone_at_its_end(place: Path) -> None:
    with Scratch("test") as first, Scratch("test") as second:
        assert first.path != second.path
        assert first.path.stat().st_mode & 0o777 == 0o700
        (first.path / "file").write_text("text")
    assert not list(place.iterdir())


def test_what_a_killed_process_left_goes_when_the_next_comes(place: Path) -> None:
    killed = [holder() for _ in range(2)]
    living, kept = holder()
    try:
        for process, _ in killed:
            end(process)
        assert all((path / "file").is_file() for _, path in killed)
        with Scratch("test") as scratch:
            assert sorted(place.iterdir()) == sorted([kept, scratch.path])
            assert (kept / "file").read_text() == "kept"
    finally:
        end(living)


@pytest.mark.parametrize("kind", ["other", "tes", "test-2"])
def test_another_kind_is_left_alone(place: Path, kind: str) -> None:
    process, path = holder()
    end(process)
    with Scratch(kind):
        assert path.is_dir()


def test_nothing_but_directories_of_our_own_is_removed(place: Path) -> None:
    precious = place / "precious"
    precious.mkdir()
    (place / "radixmesh-test-link").symlink_to(precious)
    (place / "radixmesh-test-file").write_text("text")
    shared = place / "radixmesh-test-shared"  # others may have put something there
    shared.mkdir()
    shared.chmod(0o777)
    names = {path.name for path in place.iterdir()}
    if os.geteuid() == 0:
        strangers = place / "radixmesh-test-strangers"
        strangers.mkdir()
        os.chown(strangers, 12345, 12345)
        names.add(strangers.name)
    Scratch("test").close()
    assert {path.name for path in place.iterdir()} == names


def test_it_needs_no_place_that_was_there_before(place: Path) -> None:
    place.rmdir()
    with Scratch("test") as scratch:
        assert scratch.path.is_dir()


def test_a_child_that_runs_on_does_not_hold_it() -> None:
    process, path = holder()
    end(process)
    code = (
        "import subprocess, sys\nfrom radixmesh.shared.host.scratch import Scratch\nscratch = Scratch('test')\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\nprint(child.pid, scratch.path)\n"
        "sys.stdout.flush()\nimport os\nos.kill(os.getpid(), 9)\n"
    )
    pid, left = subprocess.run([sys.executable, "-c", code], stdout=-1, text=True, check=False).stdout.split()
    try:
        assert not path.exists()
        with Scratch("test"):
            assert not Path(left).exists()
    finally:
        os.kill(int(pid), 9)

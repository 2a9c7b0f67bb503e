"""The state file, and the places for it and for logs."""

import argparse
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from radixmesh.cli import main
from radixmesh.cli.mesh import bus_settings
from radixmesh.cli.serve.supervision import state
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.host import homes


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--log-dir", "{}/file"), "--log-dir {}/file: File exists"),
        (("--log-dir", "{}/file/logs"), "--log-dir {}/file/logs: Not a directory"),
        (("--log-dir", "/proc/logs"), "--log-dir /proc/logs: No such file"),
        (("--state-file", "{}"), "--state-file {}: Is a directory"),
        (("--state-file", "{}/file/state"), "--state-file {}/file/state: File exists"),
    ],
)
def test_places_that_cannot_be_written_are_named(tmp_path: Path, flags: tuple[str, str], said: str) -> None:
    """In a process of their own, as by then children have been forked."""
    (tmp_path / "file").write_text("kept")
    words = [word.format(tmp_path) for word in flags]
    command = [sys.executable, "-m", "radixmesh.cli", "serve", "--port", "0", "--grpc-port", "0", *words]
    done = subprocess.run(
        command, env=os.environ | {"XDG_STATE_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"radixmesh serve: {said.format(tmp_path)}")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_what_a_stranger_left_among_temporary_files_is_no_state_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = homes.temporary() / "serve-8000" / state.FILE
    state.write(planted, {"pid": os.getpid()})
    assert state.running() == [planted]
    homes.temporary_name().chmod(0o777)
    assert state.running() == []


def test_the_state_file_is_its_owners_alone_and_known_while_its_writer_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    home = state.home()
    assert home is not None
    mine, another, gone = (home / name / state.FILE for name in ("serve-1", "serve-2", "serve-3"))
    state.write(another, {"pid": os.getpid()})
    state.write(mine, {"pid": os.getpid()})
    state.write(gone, {"pid": 2**22 + 1})
    contents = (b"{", b"", b"\0" * 100, b"\xff\xd0", b"[1]", b'{"pid": "x"}', b'{"pid": 99999999999999999999}')
    for number, content in enumerate(contents):
        broken = home / f"serve-broken-{number}" / state.FILE
        broken.parent.mkdir()
        broken.write_bytes(content)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o600
    assert state.running() == [mine, another]


@pytest.mark.parametrize("content", [b"{", b"\x7fELF\xd0", b"[1]", b'{"nats_url": 5}', b'{"nats_url": "x y"}', None])
def test_a_state_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "state.json"
    if content is not None:
        file.write_bytes(content)
    arguments = argparse.Namespace(state_file=str(file), nats_url=None, namespace=None)
    with pytest.raises(ConfigError, match=r"^--(state-file|nats-url) [^\n]*$"):
        bus_settings(arguments)


def test_ps_with_a_state_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--state-file", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[1]", "null", '"state"', "{", "{}", '{"pid": 1}', '{"nats_url": 5}', "\udcff"])
def test_ps_with_a_file_that_is_no_state_file(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["ps", "--state-file", str(file)]) == 2
    assert f"--state-file {file}: " in capsys.readouterr().err


def test_json_is_what_the_state_file_holds(tmp_path: Path) -> None:
    state.write(tmp_path / "deep" / "s.json", {"a": [1]})
    assert json.loads((tmp_path / "deep" / "s.json").read_text()) == state.read(tmp_path / "deep" / "s.json")

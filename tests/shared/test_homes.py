"""Directories of users with a home, without one, and unknown ones."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from radixmesh.shared.host import homes
from radixmesh.shared.host.programs import which


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def unknown(_uid: int) -> pwd.struct_passwd:
    raise KeyError("uid not found")


def test_a_home_is_the_variables_or_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    system = pwd.getpwuid(os.geteuid()).pw_dir
    assert homes.cache_home() == Path(system, ".cache")
    monkeypatch.setenv("HOME", "/home/me")
    assert homes.cache_home() == Path("/home/me/.cache")
    assert homes.state_home() == Path("/home/me/.local/state")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert homes.state_home() == Path("/state")


@pytest.mark.parametrize("home", [None, "", "not/absolute", "~"])
def test_a_user_whom_nobody_knows_has_none(monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    assert homes.cache_home() is None
    assert homes.state_home() is None


def test_the_temporary_one_is_ours_alone_and_the_same_each_time(tmp_path: Path) -> None:
    folder = homes.temporary()
    assert folder == homes.temporary() == tmp_path / f"radixmesh-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_one_that_others_can_write_to_is_not_taken(mode: int) -> None:
    homes.temporary_name().mkdir()
    homes.temporary_name().chmod(mode)
    assert homes.temporary() != homes.temporary_name()
    assert homes.is_trusted(homes.temporary())


def test_one_that_is_a_link_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    homes.temporary_name().symlink_to(tmp_path / "elsewhere")
    assert not homes.temporary().is_relative_to(homes.temporary_name())


def test_somebody_elses_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    assert homes.is_trusted(folder)
    owner = folder.stat().st_uid
    if owner:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    else:
        os.chown(folder, 12345, 12345)
    assert not homes.is_trusted(folder)


def test_a_program_in_the_current_directory_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "a-program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":.:relative:/nowhere")
    assert which("a-program") is None
    assert which("./a-program") == which(str(program)) == str(program)
    monkeypatch.setenv("PATH", f":{tmp_path}")
    assert which("a-program") == str(program)

"""Ports, the bundled model, the state file, `ps`, and the command line itself."""

import argparse
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from radixmesh import __version__
from radixmesh.cli import main
from radixmesh.cli.mesh import bus_settings
from radixmesh.cli.ps import load, table
from radixmesh.cli.serve.host import machine
from radixmesh.cli.serve.planning.model import BUNDLED, bundled_model, choose
from radixmesh.cli.serve.supervision import state
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.host import homes
from radixmesh.shared.messages import Presence, State


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .*in use.*--grpc-port"):
            machine.require_free("127.0.0.1", port, "--grpc-port")
    machine.require_free("127.0.0.1", port, "--grpc-port")


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1: not an address"):
        machine.require_host("192.0.2.1")


def test_the_machine_has_cores() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("visible", "count"), [("", 0), ("-1", 0), ("0", 1), ("2,3", 2), ("GPU-12,GPU-34", 2)])
def test_accelerators_that_are_hidden_do_not_count(monkeypatch: pytest.MonkeyPatch, visible: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.accelerators() == count


def test_without_a_model_the_bundled_one_is_served() -> None:
    chosen = choose(None, None)
    assert chosen.name == BUNDLED == "radixmesh-tiny"
    assert Path(chosen.path) == bundled_model().resolve()
    assert (bundled_model() / "config.json").is_file()
    assert choose(None, "mine").name == "mine"
    assert choose(chosen.path, None).name == BUNDLED


@pytest.mark.parametrize("model", [".", "./", "../mine", "../mine/.", "../other/../mine/", "{}/", "link/../mine"])
def test_a_model_is_served_under_its_directorys_real_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for name in ("mine", "mine/link", "mine/mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "mine")
    chosen = choose(model.format(tmp_path / "mine"), None)
    assert chosen.name == "mine"
    assert Path(chosen.path).is_absolute()


def test_a_model_whose_directory_has_no_name_to_be_asked_for_by_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a\nb"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"--model: its name 'a\\nb' .* give it one by --served-model-name"):
        choose(str(directory), None)
    assert choose(str(directory), "ab").name == "ab"


@pytest.mark.parametrize("host", ["example.invalid", "a b", f"{'a' * 70}.example", "[::1]", "1.2.3.4.5"])
def test_a_host_that_there_is_not_is_named_with_the_reason(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    for ports in ((), ("--port", "0", "--grpc-port", "0")):
        assert main(["serve", "--host", host, *ports]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"radixmesh serve: --host {host}: ")
        assert "error -" not in said
        assert said.count("\n") == 1


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


def test_ps_shows_a_row_for_each_member() -> None:
    members = [
        Presence(
            service="scheduler",
            instance="r0",
            epoch=1,
            state=State.READY,
            model="m",
            attributes={"pid": 7, "running": 2, "waiting": 1, "num_pages": 10, "free_pages": 4},
        ),
        Presence(service="gateway", instance="gateway-0", epoch=1, state=State.STARTING, detail="no tokenizer"),
    ]
    lines = table(members).splitlines()
    assert lines[0].split() == ["SERVICE", "INSTANCE", "STATE", "MODEL", "HOST", "PID", "LOAD"]
    assert lines[1].startswith("gateway")
    assert "starting (no tokenizer)" in lines[1]
    assert lines[2].endswith("7    2 running, 1 waiting, 6/10 pages")


def test_ps_tells_of_loading() -> None:
    assert load({"progress": 0.25, "claimed_by": ""}) == "loading 25%"
    assert load({"progress": 1.0, "claimed_by": "r0"}) == "works for r0"


def test_help_lists_the_subcommands_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom radixmesh.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('nats', 'numpy', 'torch', 'transformers', 'aiohttp', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("[]\n")
    assert all(name in done.stdout for name in ("serve", "run", "bench", "health", "ps", "version"))


@pytest.mark.parametrize("command", ["serve", "bench", "health", "ps", "run", "version"])
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"radixmesh {command}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"radixmesh {__version__}\n"


def test_wrong_flags_of_serve_are_told_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--replicas", "0"]) == 2
    assert capsys.readouterr().err == "radixmesh serve: --replicas 0: must be 1 to 256\n"


def test_run_becomes_the_service(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "radixmesh.cli", "run", "detokenizer", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "--served-model-name" in done.stdout


def test_run_knows_no_other_service(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "cook"])
    assert "no service 'cook'" in capsys.readouterr().err


def test_health_of_nobody_is_bad(nats_url: str, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--nats-url", nats_url, "--namespace", namespace, "--host", "nowhere", "--timeout", "0.5"]
    assert main(["health", "model-worker", *flags]) == 1
    assert capsys.readouterr().out == "no model_worker on nowhere answers\n"


def test_health_without_a_bus_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"nats://127.0.0.1:{machine.free_port()}"
    assert main(["health", "gateway", "--nats-url", url, "--timeout", "0.3"]) == 1
    assert url in capsys.readouterr().err


def test_ps_with_a_state_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--state-file", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[1]", "null", '"state"', "{", "{}", '{"pid": 1}', '{"nats_url": 5}', "\udcff"])
def test_ps_with_a_file_that_is_no_state_file(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert main(["ps", "--state-file", str(file)]) == 2
    assert f"--state-file {file}: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["ps"], ["health", "gateway"]])
@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_a_wait_that_is_none_is_named(command: list[str], timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--timeout", timeout])
    assert exit_.value.code == 2
    assert f"--timeout: '{timeout}' is not a number of seconds" in capsys.readouterr().err


def test_json_is_what_the_state_file_holds(tmp_path: Path) -> None:
    state.write(tmp_path / "deep" / "s.json", {"a": [1]})
    assert json.loads((tmp_path / "deep" / "s.json").read_text()) == state.read(tmp_path / "deep" / "s.json")

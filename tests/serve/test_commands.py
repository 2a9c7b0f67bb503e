"""The command line: `ps`, `run`, `health`, `version`, and what wrong words lead to."""

import subprocess
import sys
from pathlib import Path

import pytest

from radixmesh import __version__
from radixmesh.cli import main
from radixmesh.cli.ps import load, table
from radixmesh.cli.serve.host import machine
from radixmesh.shared.messages import Presence, State


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


@pytest.mark.parametrize("command", [["ps"], ["health", "gateway"]])
@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_a_wait_that_is_none_is_named(command: list[str], timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--timeout", timeout])
    assert exit_.value.code == 2
    assert f"--timeout: '{timeout}' is not a number of seconds" in capsys.readouterr().err

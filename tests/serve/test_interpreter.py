"""Fresh interpreters import what their parent does, and nothing from the current directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from radixmesh.cli.serve.host import interpreter

LOOK = """
import os, sys
from radixmesh.cli.serve.host.interpreter import settle_imports
settle_imports()
print(os.path.realpath(".") in sys.path, os.environ.get("PYTHONPATH", "-"))
"""


def look(cwd: Path, pythonpath: str, *flags: str) -> list[str]:
    """Whether the current directory may be imported from, and the children's ``PYTHONPATH``."""
    environ = os.environ | {"PYTHONPATH": pythonpath}
    command = [sys.executable, *flags, "-c", LOOK]
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("given", ["", ":", "::"])
def test_no_entry_means_the_current_directory(tmp_path: Path, given: str) -> None:
    assert look(tmp_path, given) == ["False", "-"]


def test_entries_that_name_a_directory_stay_and_are_made_absolute(tmp_path: Path) -> None:
    here = tmp_path.resolve()
    assert look(tmp_path, f":/a:{here}") == ["True", f"/a:{here}"]
    assert look(tmp_path, "b/c:/a:") == ["False", f"{here}/b/c:/a"]


def test_run_from_its_sources_the_package_is_found_again() -> None:
    root = Path(interpreter.ROOT)
    assert look(root, "") == ["True", str(root)]


@pytest.mark.parametrize("flags", [(), ("-I",), ("-E", "-s")])
def test_a_child_is_as_isolated_as_its_parent(tmp_path: Path, flags: tuple[str, ...]) -> None:
    code = "from radixmesh.cli.serve.host import interpreter; print(*interpreter.command('m'))"
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    argv = done.stdout.split()
    assert argv[:2] == [sys.executable, "-P"]
    assert set(flags) <= set(argv)
    assert argv[-2:] == ["-m", "m"]
    assert interpreter.arguments([*argv, "--a=-m", "-m"]) == ["--a=-m", "-m"]

"""Building and caching the library: several processes, broken compilers, forks."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_fixtures import library

from radixmesh.services.model_worker.kernels import build, native

_BUILD = "from radixmesh.services.model_worker.kernels import build; print(build.library_path())"


@pytest.fixture(autouse=True)
def needs_a_compiler() -> None:
    library()


def test_processes_that_build_at_once_agree(tmp_path: Path) -> None:
    """The compiler takes its time and gives what was compiled before, so that the builds do run side by side."""
    compiler = tmp_path / "g++"
    copy = f'[ $# = 1 ] || {{ sleep 1; cp {build.library_path()} "$last"; }}'  # alone stands --version
    compiler.write_text(f"#!/bin/sh\nfor last; do true; done\n{copy}\n")
    compiler.chmod(0o755)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), build.COMPILER_ENV: str(compiler)}
    command = [sys.executable, "-c", _BUILD]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=170)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (path,) = paths
    assert native.Native(Path(path)).panel_width in (16, 32)
    assert [item.name for item in Path(path).parent.iterdir()] == ["kernels.so"]


def test_another_cpu_gets_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = build.find_compiler()
    here = build._key(compiler)
    assert build._key(compiler) == here
    monkeypatch.setattr(build, "cpu_features", lambda: "something else")
    assert build._key(compiler) != here


@pytest.mark.parametrize("script", ["exit 1", "echo 'x.cpp:1: error: no such thing' >&2; exit 1", None])
def test_without_a_compiler_torch_computes(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CXX", build.COMPILER_ENV, native.FORCE_ENV):
        monkeypatch.delenv(name, raising=False)
    if script is not None:
        compiler = tmp_path / "g++"
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
    native._load.cache_clear()
    native._warn.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert native.native() is None
            assert native.native() is None
        assert len(caplog.records) == 1
        assert ("no C++ compiler" if script is None else "failed") in caplog.text
        monkeypatch.setenv(native.FORCE_ENV, "native")
        with pytest.raises(build.BuildError):
            native.native()
    finally:
        native._load.cache_clear()
        native._warn.cache_clear()


def test_torch_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.FORCE_ENV, "torch")
    assert native.native() is None


def test_a_cache_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(build.BuildError, match="cannot be written"):
        build.library_path(blocked)


_FORK = """
import os, torch
from radixmesh.services.model_worker.kernels.native import native
from radixmesh.services.model_worker.kernels.weights import PackedWeight
library = native()
library.set_threads(3)
packed = PackedWeight(library, [torch.ones(64, 32)])
x = torch.ones(20, 32)
assert (packed.multiply(x) == 32).all()
child = os.fork()
if child == 0:
    os._exit(0 if (packed.multiply(x) == 32).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (packed.multiply(x) == 32).all()
"""


def test_a_forked_process_computes_too() -> None:
    subprocess.run([sys.executable, "-c", _FORK], check=True, timeout=120)


_WIDE = """
import torch
from radixmesh.services.model_worker.kernels.native import native
from radixmesh.services.model_worker.kernels.weights import Format, PackedWeight
library = native()
assert library.panel_width == 32, library.panel_width
w, x = torch.randn(70, 150), torch.randn(29, 150)
for form, bound in ((Format(), 1e-5), (Format(5, 128), 6e-4), (Format(3, 128), 3e-2), (Format(4, 32), 0.3)):
    packed = PackedWeight(library, [w], form=form)
    for rows in (1, 7, 12, 13, 29):
        error = packed.multiply(x[:rows]) - x[:rows] @ w.T
        assert error.norm() < bound * (x[:rows] @ w.T).norm(), (form, rows)
"""


def test_the_layouts_of_wide_vectors(tmp_path: Path) -> None:
    """What AVX-512 has, put together from what this CPU has."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), native.FORCE_ENV: "native"}
    environment[build.FLAGS_ENV] = "-O1 -DRM_WIDE"
    subprocess.run([sys.executable, "-c", _WIDE], check=True, timeout=170, env=environment)

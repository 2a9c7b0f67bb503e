"""Building and caching the library: several processes, broken compilers, forks."""

import errno
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from radixmesh.services.model_worker.devices.cpu import build, native
from tests.model_worker.kernel_fixtures import library

_BUILD = (
    "from radixmesh.services.model_worker.devices.cpu import build; print(build.library_path(next(build.caches())))"
)


@pytest.fixture(autouse=True)
def needs_a_compiler() -> None:
    library()


def test_processes_that_build_at_once_agree(tmp_path: Path) -> None:
    """The compiler takes its time and gives what was compiled before, so that the builds do run side by side."""
    compiler = tmp_path / "g++"
    copy = f'[ $# = 1 ] || {{ sleep 1; cp {library().path} "$last"; }}'  # alone stands --version
    compiler.write_text(f"#!/bin/sh\nfor last; do true; done\n{copy}\n")
    compiler.chmod(0o755)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), build.COMPILER_ENV: str(compiler)}
    command = [sys.executable, "-c", _BUILD]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=170)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (path,) = paths
    assert native.Native(Path(path)).panel_width in (16, 32)
    assert sorted(item.name for item in Path(path).parent.iterdir()) == ["kernels.so", "kernels.so.sum"]


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


def quick(tmp_path: Path) -> dict[str, str]:
    """An environment with a cache of its own and a compiler that counts its calls; it gives what was built before."""
    compiler = tmp_path / "g++"
    copy = f'[ $# = 1 ] || {{ echo >> {tmp_path}/calls; cp {library().path} "$last"; }}'
    compiler.write_text(f"#!/bin/sh\nfor last; do true; done\n{copy}\n")
    compiler.chmod(0o755)
    (tmp_path / "temporary").mkdir()
    return os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "temporary"),
        build.COMPILER_ENV: str(compiler),
        native.FORCE_ENV: "native",
    }


_FIRST = """
import ctypes
from radixmesh.services.model_worker.devices.cpu import build
path = build.library_path(next(build.caches()))
ctypes.CDLL(str(path))
print(path)
"""
_ANY = "from radixmesh.services.model_worker.devices.cpu.native import native; print(native().path)"


def loaded(environ: dict[str, str], code: str = _ANY) -> Path:
    """Where a process of its own has its library from. With `_FIRST` as code it looks in one cache, without torch."""
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def builds(tmp_path: Path) -> int:
    return (tmp_path / "calls").read_text().count("\n")


def spoil(how: str, path: Path) -> None:
    """Makes of a cached library what a power failure, a full disk or a careless copy may leave of it."""
    beside = path.with_name("kernels.so.sum")
    match how:
        case "cut short":
            os.truncate(path, path.stat().st_size // 2)
        case "empty":
            os.truncate(path, 0)
        case "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        case "one bit":
            path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
        case "sum missing":
            beside.unlink()
        case "sum cut short":
            beside.write_text(beside.read_text()[:20])
        case "sum no text":
            beside.write_bytes(b"\xff\xfe")
        case "library missing":
            path.unlink()
        case "a directory":
            path.unlink()
            path.mkdir()
            (path / "file").write_text("")
        case "link to nowhere":
            path.unlink()
            path.symlink_to("/nowhere")
        case "writable by others":
            path.parent.chmod(0o777)


@pytest.mark.parametrize(
    "how",
    [
        *("cut short", "empty", "zeros", "one bit", "sum missing", "sum cut short", "sum no text"),
        *("library missing", "a directory", "link to nowhere", "writable by others"),
    ],
)
def test_what_lies_in_the_cache_is_not_believed(tmp_path: Path, how: str) -> None:
    environ = quick(tmp_path)
    path = loaded(environ, _FIRST)
    once = builds(tmp_path)
    assert loaded(environ, _FIRST) == path
    assert builds(tmp_path) == once
    spoil(how, path)
    assert loaded(environ, _FIRST) == path
    assert builds(tmp_path) == 2 * once
    assert loaded(environ, _FIRST) == path
    assert builds(tmp_path) == 2 * once


def test_a_library_is_built_anew_after_every_cut(tmp_path: Path) -> None:
    """Checked without loading: at no length is a part taken for the whole."""
    path = loaded(quick(tmp_path), _FIRST)
    assert build.is_sound(path)
    whole = path.read_bytes()
    for length in (1, 63, 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert not build.is_sound(path)
    path.write_bytes(whole + b"x")
    assert not build.is_sound(path)


@pytest.mark.parametrize("blocked", ["a file", "a folder that takes nothing"])
def test_where_the_cache_cannot_be_written_a_temporary_folder_takes_its_place(tmp_path: Path, blocked: str) -> None:
    environ = quick(tmp_path)
    if blocked == "a file":
        (tmp_path / "cache").write_text("")
    else:
        environ["XDG_CACHE_HOME"] = "/proc"
    path = loaded(environ)
    assert path.is_relative_to(tmp_path / "temporary" / f"radixmesh-{os.geteuid()}")
    once = builds(tmp_path)
    assert loaded(environ) == path
    assert builds(tmp_path) == once


def test_a_disk_that_is_full_is_noticed_before_the_compiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv(build.COMPILER_ENV, quick(tmp_path)[build.COMPILER_ENV])
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        build.library_path(tmp_path / "cache")
    assert not (tmp_path / "calls").exists()
    assert [item for item in (tmp_path / "cache").rglob("*") if item.is_file()] == []


def test_without_any_cache_torch_computes_and_says_how_slowly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(native.FORCE_ENV, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    monkeypatch.setenv(build.COMPILER_ENV, quick(tmp_path)[build.COMPILER_ENV])
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    native._load.cache_clear()
    native._warn.cache_clear()
    try:
        assert native.native() is None
        assert "many times slower" in caplog.text
        assert "/proc/radixmesh" in caplog.text
    finally:
        native._load.cache_clear()
        native._warn.cache_clear()


def test_what_somebody_else_planted_is_not_loaded(tmp_path: Path) -> None:
    """The name of the temporary folder is known to all, and who is first can put a library of his own there."""
    environ = quick(tmp_path)
    (tmp_path / "cache").write_text("")
    taken = tmp_path / "temporary" / f"radixmesh-{os.geteuid()}"
    for plant in (lambda: taken.mkdir(mode=0o777), lambda: taken.symlink_to(tmp_path)):
        plant()
        if not taken.is_symlink():
            taken.chmod(0o777)  # whatever the umask
        path = loaded(environ)
        assert not path.is_relative_to(taken)
        assert path.parents[2].stat().st_mode & 0o077 == 0
        taken.unlink() if taken.is_symlink() else taken.rmdir()


def test_a_header_in_the_current_directory_is_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty entry of a search path means the current directory: the compiler's own, not its caller's."""
    (tmp_path / "vector").write_text("#error not the header you wanted")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPLUS_INCLUDE_PATH", ":/nowhere")
    source = tmp_path / "work" / "x.cpp"
    source.write_text("#include <vector>\n")
    build._run([build.find_compiler(), "-fsyntax-only", str(source)], tmp_path / "work")


def test_a_compiler_in_the_current_directory_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g++").write_text("#!/bin/sh\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for name in ("CXX", build.COMPILER_ENV):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f":.:{os.environ['PATH']}")
    assert Path(build.find_compiler()).parent != tmp_path
    assert os.path.isabs(build.find_compiler())


_FORK = """
import os, torch
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.cpu.packed import PackedWeight
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


_STARVED = """
import resource, torch
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
library = native()

def leave(mebibytes):
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, ((used << 10) + (mebibytes << 20), resource.RLIM_INFINITY))

"""

_FEW_THREADS = (
    _STARVED
    + """
torch.set_num_threads(1)
x = torch.ones(20, 32)
leave(20)  # a thread's stack takes 8
library.set_threads(64)
packed = PackedWeight(library, [torch.ones(64, 32)])
for _ in range(3):
    assert (packed.multiply(x) == 32).all()
"""
)

_NO_MEMORY = (
    _STARVED
    + """
from radixmesh.services.model_worker.devices.cpu.arena import Arena
library.set_threads(2)
matrix = torch.zeros(4 * library.panel_width, 1 << 19, dtype=torch.bfloat16)
room = Arena(4 * matrix.nbytes)
PackedWeight(library, [torch.ones(64, 32)], arena=room)  # the threads are there now, and the room
leave(12)  # a panel of floats takes 16 or more
for _ in range(3):
    try:
        PackedWeight(library, [matrix], arena=room)
    except MemoryError:
        continue
    raise AssertionError("there was memory after all")
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert (PackedWeight(library, [torch.ones(64, 32)]).multiply(torch.ones(20, 32)) == 32).all()
"""
)


@pytest.mark.parametrize("code", [_FEW_THREADS, _NO_MEMORY], ids=["threads", "memory"])
def test_what_the_system_refuses_ends_no_process(code: str) -> None:
    """Containers have bounds on threads and memory: fewer threads do the work, and less memory is an error."""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


_WIDE = """
import torch
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
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

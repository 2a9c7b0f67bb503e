"""From the C++ files beside this one to a shared library in the user's cache.

    CACHE/radixmesh/kernels/KEY/kernels.so          the library
                                kernels.so.sum      its length and hash

The library's folder is named by a hash of everything it depends on: sources, compiler, flags, the CPU's features. So a
library is never loaded on a CPU it was not built for (a home directory may be shared), and old ones just stay behind.
Processes that build at once each build their own copy and rename it into place; the last one wins, all are equal.

What lies in a cache is not believed: a library that a power failure or a full disk has cut short would kill whoever
maps it. It is loaded only if length and hash are those that were written behind it, and nobody else can have put it
there; else it is built anew. Where the cache cannot be written, a temporary folder takes its place.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from radixmesh.shared.host.homes import cache_home, is_trusted, temporary
from radixmesh.shared.host.programs import which

SOURCES = Path(__file__).parent / "src"
COMPILER_ENV = "RADIXMESH_CXX"
FLAGS_ENV = "RADIXMESH_CXXFLAGS"
"""More flags for the compiler, e.g. `-march=x86-64-v3`; they come last."""
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-fPIC",
    "-pthread",
)
_TIMEOUT_SECONDS = 600.0
_ROOM = 16 << 20
"""Bytes that a build takes at most: objects, the compiler's temporary files, the library."""


class BuildError(Exception):
    """The library cannot be built here; the message says why in one line."""


def library_path(cache: Path, building: Callable[[], None] = lambda: None) -> Path:
    """The library for this machine, built now if it is not sound in the folder `cache`.

    building: called before that, as it takes most of a minute.

    Raises:
        BuildError: it cannot be built, wherever it is to lie.
        OSError: `cache` cannot hold it.
    """
    compiler = find_compiler()
    target = _target(compiler, cache)
    if not is_sound(target):
        _build(compiler, target, building)
    return target


def caches() -> Iterator[Path]:
    """Folders that may hold the library, the best first: the user's cache, a temporary one.

    Raises OSError behind the first if the machine has no directory for temporary files.
    """
    if (home := cache_home()) is not None:
        yield home / "radixmesh" / "kernels"
    yield temporary() / "kernels"


def is_sound(library: Path) -> bool:
    """Whether `library` is there, whole, and the work of nobody else."""
    try:
        return is_trusted(library.parent) and _sum_file(library).read_text(encoding="ascii") == _sum(library)
    except (OSError, ValueError):
        return False


def _sum(library: Path) -> str:
    content = library.read_bytes()
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}\n"


def _sum_file(library: Path) -> Path:
    return library.with_name(f"{library.name}.sum")


def _target(compiler: str, cache: Path) -> Path:
    return cache / _key(compiler) / "kernels.so"


def find_compiler() -> str:
    """Path of a C++ compiler: `$RADIXMESH_CXX`, `$CXX`, or the first of g++, clang++, c++. Raises `BuildError`."""
    for name in (os.environ.get(COMPILER_ENV), os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := which(name)):
            return found
    raise BuildError(f"there is no C++ compiler (g++, clang++, or {COMPILER_ENV})")


def _flags() -> list[str]:
    return [*_FLAGS, *os.environ.get(FLAGS_ENV, "").split()]


def _sources() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h"))


def _key(compiler: str) -> str:
    digest = hashlib.sha256()
    for part in (" ".join(_flags()), _run([compiler, "--version"], SOURCES), cpu_features()):
        digest.update(part.encode() + b"\0")
    for path in _sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def cpu_features() -> str:
    """What `-march=native` goes by: the architecture, the model and its instruction sets."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    lines: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            lines.setdefault(name.strip(), value.strip())
    told = sorted(lines.items()) or platform.processor()  # which starts a process on some systems
    return f"{platform.machine()} {told}"


def _build(compiler: str, target: Path, building: Callable[[], None]) -> None:
    folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not is_trusted(folder):
        os.chmod(folder, 0o755)  # made under a generous umask; somebody else's is refused  # noqa: S103
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as draft:
        _require_room(Path(draft))
        building()
        try:
            library = _compile(compiler, Path(draft))
        except BuildError:
            _require_room(Path(draft))  # somebody else may have filled the disk meanwhile
            raise
        _sum_file(library).write_text(_sum(library), encoding="ascii")
        for file in (library, _sum_file(library)):
            _flush(file)
        _put(library, target)
        _put(_sum_file(library), _sum_file(target))
    _flush(folder)


def _require_room(folder: Path) -> None:
    """Raises OSError unless a build fits there: a compiler says so in words that only people can read."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        os.posix_fallocate(probe.fileno(), 0, _ROOM)


def _put(file: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    os.replace(file, target)


def _flush(path: Path) -> None:
    """Returns when the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _compile(compiler: str, folder: Path) -> Path:
    """Files are compiled in one group per core: most of a small file's time goes to the headers."""
    files = sorted((path for path in _sources() if path.suffix == ".cpp"), key=lambda path: -path.stat().st_size)
    cores = min(len(os.sched_getaffinity(0)), 4)

    def compile_group(index: int) -> str:
        source, output = folder / f"group{index}.cpp", folder / f"group{index}.o"
        source.write_text("".join(f'#include "{path}"\n' for path in files[index::cores]), encoding="utf-8")
        _run([compiler, *_flags(), "-c", str(source), "-o", str(output)], folder)
        return str(output)

    with ThreadPoolExecutor(max_workers=cores) as pool:
        objects = list(pool.map(compile_group, range(cores)))
    library = folder / "kernels.so"
    _run([compiler, "-shared", "-pthread", *objects, "-o", str(library)], folder)
    return library


def _run(command: list[str], folder: Path) -> str:
    """Runs a compiler in `folder`: from the current directory it might take headers.

    Its temporary files lie there too, and its messages are in English.
    """
    environ = {**os.environ, "TMPDIR": str(folder), "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, cwd=folder, env=environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        lines = done.stderr.splitlines()
        why = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
        raise BuildError(f"{command[0]} failed: {why.strip()}")
    return done.stdout

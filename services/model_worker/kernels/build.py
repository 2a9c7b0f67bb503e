"""From the C++ files beside this one to a shared library in the user's cache.

The library's folder is named by a hash of everything it depends on: sources, compiler, flags, the CPU's features. So a
library is never loaded on a CPU it was not built for (a home directory may be shared), and old ones just stay behind.
Processes that build at once each build their own copy and rename it into place; the last one wins, all are equal.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


class BuildError(Exception):
    """The library cannot be built here; the message says why in one line."""


def library_path(cache: Path | None = None) -> Path:
    """The library for this machine, built now if it is not in the cache. Raises `BuildError`."""
    compiler = find_compiler()
    target = _target(compiler, cache)
    if not target.exists():
        _build(compiler, target)
    return target


def must_be_built() -> bool:
    """Whether `library_path` would compile now, which takes most of a minute."""
    try:
        return not _target(find_compiler(), None).exists()
    except BuildError:
        return False


def _target(compiler: str, cache: Path | None) -> Path:
    return (cache or cache_dir()) / _key(compiler) / "kernels.so"


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/radixmesh/kernels`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "radixmesh" / "kernels"


def find_compiler() -> str:
    """Path of a C++ compiler: `$RADIXMESH_CXX`, `$CXX`, or the first of g++, clang++, c++. Raises `BuildError`."""
    for name in (os.environ.get(COMPILER_ENV), os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise BuildError(f"there is no C++ compiler (g++, clang++, or {COMPILER_ENV})")


def _flags() -> list[str]:
    return [*_FLAGS, *os.environ.get(FLAGS_ENV, "").split()]


def _sources() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h"))


def _key(compiler: str) -> str:
    digest = hashlib.sha256()
    for part in (" ".join(_flags()), _run([compiler, "--version"]), cpu_features()):
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
    return f"{platform.machine()} {platform.processor()} {sorted(lines.items())}"


def _build(compiler: str, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            library = _compile(compiler, Path(folder))
            os.replace(library, target)
    except OSError as error:
        raise BuildError(f"the cache folder {target.parent} cannot be written ({error.strerror})") from error


def _compile(compiler: str, folder: Path) -> Path:
    """Files are compiled in one group per core: most of a small file's time goes to the headers."""
    files = sorted((path for path in _sources() if path.suffix == ".cpp"), key=lambda path: -path.stat().st_size)
    cores = min(len(os.sched_getaffinity(0)), 4)

    def compile_group(index: int) -> str:
        source, output = folder / f"group{index}.cpp", folder / f"group{index}.o"
        source.write_text("".join(f'#include "{path}"\n' for path in files[index::cores]), encoding="utf-8")
        _run([compiler, *_flags(), "-c", str(source), "-o", str(output)])
        return str(output)

    with ThreadPoolExecutor(max_workers=cores) as pool:
        objects = list(pool.map(compile_group, range(cores)))
    library = folder / "kernels.so"
    _run([compiler, "-shared", "-pthread", *objects, "-o", str(library)])
    return library


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        lines = done.stderr.splitlines()
        why = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
        raise BuildError(f"{command[0]} failed: {why.strip()}")
    return done.stdout

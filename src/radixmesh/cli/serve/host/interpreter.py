"""Fresh interpreters for children: like this one in what they import, wherever `radixmesh serve` was called.

The directory that happens to be current is no place to import from. A user's `random.py` there would end every service
that is started again, and its code would run in ours.
"""

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

import radixmesh

ROOT = str(Path(radixmesh.__file__).parents[1])
"""Where this package is imported from."""

_STDLIB = os.path.dirname(os.__file__)


def command(module: str) -> tuple[str, ...]:
    """The beginning of a command line that runs `module`; its flags follow."""
    flags = sys.flags
    given = {"-I": flags.isolated, "-E": flags.ignore_environment, "-s": flags.no_user_site}
    return (sys.executable, "-P", *(flag for flag, is_set in given.items() if is_set), "-m", module)


def arguments(argv: Sequence[str]) -> list[str]:
    """The flags of a command line that begins with a `command`."""
    return list(argv[argv.index("-m") + 2 :])


def folder() -> str | None:
    """Where a child is to run: None, which is here, unless that has been deleted, for libraries fail to load then."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None


def settle_imports() -> None:
    """Makes this process, and all whose environment comes from its own, import nothing from the current directory.

    `python -m` means that directory, and so does an empty entry of ``PYTHONPATH``, which a colon too many makes. A
    relative entry is made absolute; where this package itself lies stays.
    """
    given = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    try:
        here = os.getcwd()
    except OSError:  # it has been deleted, or may not be looked at: nobody imports from there
        here = ""
    entries = [os.path.join(here, entry) for entry in given if entry and (here or os.path.isabs(entry))]
    if here == ROOT and not sys.flags.safe_path:  # run from the sources by `python -m`
        entries.append(ROOT)
    before = sys.path.index(_STDLIB) if _STDLIB in sys.path else 0  # what stands there was asked for by the caller
    if here not in (ROOT, *map(os.path.normpath, entries), *site.getsitepackages()):
        sys.path[:before] = [entry for entry in sys.path[:before] if entry not in ("", here)]
    if entries:
        os.environ["PYTHONPATH"] = os.pathsep.join(entries)

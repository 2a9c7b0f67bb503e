"""Directories of the user who runs this process, and what to take where there are none.

Containers run as users whom the system does not know, without HOME, or with one that belongs to somebody else. So no
directory given here need exist or be writable; whoever writes tries, and takes `temporary` if that fails.
"""

import os
import pwd
import stat
import tempfile
from pathlib import Path


def cache_home() -> Path | None:
    """``$XDG_CACHE_HOME``, by default ``~/.cache``; None for a user without a home."""
    return _base("XDG_CACHE_HOME", ".cache")


def state_home() -> Path | None:
    """``$XDG_STATE_HOME``, by default ``~/.local/state``; None for a user without a home."""
    return _base("XDG_STATE_HOME", ".local/state")


def temporary() -> Path:
    """A directory that nobody else can write to, the same one for all processes of this user; made if need be.

    If somebody else has taken its name, it is one of another name, new at each call. Raises OSError.
    """
    folder = temporary_name()
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if is_trusted(folder) else Path(tempfile.mkdtemp(prefix="radixmesh-"))


def temporary_name() -> Path:
    """Where `temporary` is, if it is there. Raises OSError if the machine has no directory for temporary files."""
    return Path(tempfile.gettempdir()) / f"radixmesh-{os.geteuid()}"


def is_trusted(folder: Path) -> bool:
    """Whether `folder` is a real directory in which only this user (or root) can have put what lies there."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    writable_by_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid()) and not writable_by_others


def _base(variable: str, default: str) -> Path | None:
    given = os.environ.get(variable, "")
    if os.path.isabs(given):  # others are to be ignored, says the XDG specification
        return Path(given)
    home = _home()
    return None if home is None else home / default


def _home() -> Path | None:
    home = os.environ.get("HOME", "")
    if not home:
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
    return Path(home) if os.path.isabs(home) else None

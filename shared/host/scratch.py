"""Temporary directories that do not outlive their process for long, however it ends.

A process that is killed removes nothing. So each of these directories is locked by the process that works in it, for
as long as that lives, and whoever makes one removes those of its kind that nobody locks any more.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from radixmesh.shared.host.homes import is_trusted


class Scratch:
    """A new directory that only this user can look into. Raises OSError."""

    def __init__(self, kind: str) -> None:
        """`kind`: what it is for, in one word; part of its name."""
        place = tempfile.gettempdir()
        os.makedirs(place, mode=0o700, exist_ok=True)  # chosen once, and it may have gone since
        for left in _left_behind(Path(place), f"radixmesh-{kind}-*"):
            shutil.rmtree(left, ignore_errors=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".radixmesh-{kind}-", dir=place))
        self._lock = os.open(hidden, os.O_RDONLY)
        with contextlib.suppress(OSError):  # where directories cannot be locked nobody removes any
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Under its name it is locked from the first moment on.
        self.path = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))

    def close(self) -> None:
        """Removes it, with all that is in it. To be called once."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _left_behind(place: Path, pattern: str) -> Iterator[Path]:
    """This user's directories in `place` that no process locks; each is locked while it is looked at."""
    for path in place.glob(pattern):
        if not is_trusted(path):  # a link, or somebody else's
            continue
        with contextlib.suppress(OSError):  # it is locked, or has just been removed
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path
            finally:
                os.close(descriptor)

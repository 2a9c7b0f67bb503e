"""A wall clock that a test turns, for processes that it starts: see `wall_clock.c`."""

import subprocess
from pathlib import Path


class WallClock:
    """Start processes with `environ`, and they see the time that `shift` sets."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "shift"
        self._library = directory / "wall_clock.so"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", self._library, source], check=True)  # noqa: S607
        self.shift(0)

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_SHIFT": str(self._file)}

    def shift(self, seconds: int) -> None:
        """The clock is so many seconds ahead of the machine's from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)  # readers see the old or the new one, never half of it

"""The loss of a run, a CSV line every few steps."""

import csv
from pathlib import Path

from training.checkpoint import Progress

EVERY = 10


class LossLog:
    """Appends to a file. A resumed run goes on in it, and takes out what was written after the checkpoint."""

    def __init__(self, path: Path, kinds: list[str], resumed: Progress) -> None:
        self._path, self._kinds = path, ["all", *kinds]
        self._losses: list[float] = []
        if resumed.steps and path.exists():
            header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
            path.write_text(header + "".join(row for row in rows if int(row.split(",")[0]) <= resumed.steps))
        else:
            path.unlink(missing_ok=True)
            self._write(["step", "tokens", "seconds", "train", *(f"heldout {kind}" for kind in self._kinds)])

    def add(self, progress: Progress, loss: float, heldout: dict[str, float] | None) -> None:
        """One step's training loss, and the held-out losses if they were measured after it."""
        self._losses.append(loss)
        if heldout is None and len(self._losses) < EVERY:
            return
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        columns = [f"{heldout[kind]:.4f}" if heldout else "" for kind in self._kinds]
        self._write([progress.steps, progress.tokens, round(progress.seconds), f"{mean:.4f}", *columns])

    def _write(self, row: list[object] | list[str]) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

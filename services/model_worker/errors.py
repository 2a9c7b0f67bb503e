"""What can go wrong in a worker before it serves.

    WorkerError
      ModelLoadError     a checkpoint, its config or its weights cannot be served as asked
      PlatformError      the device asked for is not there, or cannot do what was asked
"""

from pathlib import Path


class WorkerError(ValueError):
    """Base of every error a worker raises on purpose while it starts."""


class ModelLoadError(WorkerError):
    """A model cannot be loaded; the message names the file and the field or tensor at fault."""

    def __init__(self, file: Path | str, subject: str, problem: str) -> None:
        """`subject` is the config field or the tensor; empty when the file as a whole is at fault."""
        where = f"{file}: {subject}" if subject else str(file)
        super().__init__(f"{where}: {problem}")
        self.file = str(file)
        self.subject = subject
        self.problem = problem


class PlatformError(WorkerError):
    """The device asked for does not exist here."""

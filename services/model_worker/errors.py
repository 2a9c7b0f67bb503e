"""What can go wrong in a worker."""

import errno
from pathlib import Path

import torch

from radixmesh.shared import errors


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused: Python, numpy and a device's torch have types for that, a CPU's only words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


class ModelLoadError(errors.ModelLoadError):
    """A model cannot be loaded; the message names the file and the field or tensor at fault."""

    def __init__(self, file: Path | str, subject: str, problem: str) -> None:
        """`subject` is the config field or the tensor; empty when the file as a whole is at fault."""
        where = f"{file}: {subject}" if subject else str(file)
        super().__init__(f"{where}: {problem}")
        self.file = str(file)
        self.subject = subject
        self.problem = problem


class DeviceError(errors.ConfigError):
    """The device or the backend asked for does not exist here."""

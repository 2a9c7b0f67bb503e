"""What can go wrong in a worker."""

import errno

import torch

from radixmesh.shared.errors import ConfigError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused: Python, numpy and a device's torch have types for that, a CPU's only words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


class DeviceError(ConfigError):
    """The device or the backend asked for does not exist here."""

"""Devices by name."""

from collections.abc import Callable

from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.devices.torch.device import ACCELERATORS, TorchDevice, is_available
from radixmesh.services.model_worker.errors import DeviceError


def open_device(name: str, index: int, threads: int, progress: Callable[[str], None] = lambda _what: None) -> Device:
    """The device `name`, or with "auto" the first accelerator found, else the CPU.

    Args:
        index: which of its kind; there is one CPU.
        threads: of the CPU, for the model.
        progress: called with what is being done, if it takes time.

    Raises `DeviceError` when it is not there.
    """
    if name == "auto":
        name = next((kind for kind in ACCELERATORS if is_available(kind)), CpuDevice.name)
    if name == CpuDevice.name:
        return CpuDevice.open(threads, progress)
    if name not in ACCELERATORS:
        raise DeviceError(f"unknown device {name!r} (known: auto, {', '.join((CpuDevice.name, *ACCELERATORS))})")
    return TorchDevice.open(name, index)

"""Accelerators as torch has them, and how torch runs a model anywhere.

CUDA (NVIDIA, and AMD through ROCm, which torch also calls `cuda`) is tested where the tests find one. XPU and NPU go as
far as torch itself knows them: their plug-ins are looked up, never imported unless present.
"""

import importlib
import importlib.util
import logging
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.device import Execution, Wishes
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.errors import DeviceError
from radixmesh.services.model_worker.forward.description import ModelDescription
from radixmesh.services.model_worker.forward.traits import DeviceTraits
from radixmesh.shared.errors import ConfigError

log = logging.getLogger(__name__)


class _Accelerator(NamedTuple):
    package: str | None
    """What torch needs beyond itself."""
    collectives: str


ACCELERATORS = {
    "cuda": _Accelerator(None, "nccl"),
    "xpu": _Accelerator(None, "xccl"),
    "npu": _Accelerator("torch_npu", "hccl"),
}


@dataclass(frozen=True)
class TorchDevice:
    """A `Device`: an accelerator."""

    traits: ClassVar = DeviceTraits(synchronous=False)
    name: str
    torch_device: torch.device
    collectives: str

    @classmethod
    def open(cls, name: str, index: int) -> "TorchDevice":
        """Number `index` of the accelerators of a kind. Raises `DeviceError` when it is not there."""
        if not is_available(name):
            raise DeviceError(f"device {name!r} is not available: {_why_not(name)}")
        count = _runtime(name).device_count()
        if index >= count:
            raise DeviceError(f"device {name}:{index} does not exist: {count} found")
        return cls(name, torch.device(name, index), ACCELERATORS[name].collectives)

    def synchronize(self) -> None:
        _runtime(self.name).synchronize()

    def total_memory(self) -> int:
        total: int = _runtime(self.name).mem_get_info(self.torch_device)[1]
        return total

    def free_memory(self) -> int:
        free: int = _runtime(self.name).mem_get_info(self.torch_device)[0]
        return free

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    def serving_dtype(self, checkpoint: torch.dtype) -> torch.dtype:
        if self.name == "cuda" and checkpoint is torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
            return torch.float16
        return checkpoint

    def choose(self, model: ModelDescription, wishes: Wishes) -> Execution:
        return in_torch(wishes)


def in_torch(wishes: Wishes) -> Execution:
    """Plain torch, which runs every model on every device. Raises `DeviceError`, `ConfigError`."""
    if wishes.attention not in ("", "torch"):
        raise DeviceError(unknown_attention(wishes.attention, "torch"))
    if wishes.quantization:
        raise ConfigError(f"--quantization {wishes.quantization} needs the CPU kernels, which are not to be had here")
    log.info("steps run layer by layer in torch")
    return Execution(TorchAttention(), TorchLinear(), TorchExecutor)


def unknown_attention(name: str, *known: str) -> str:
    return f"there is no attention backend {name!r} here (known: {', '.join(known)})"


def is_available(name: str) -> bool:
    """Whether there is an accelerator of this kind, and what torch needs for it."""
    package = ACCELERATORS[name].package
    if package is not None:
        if importlib.util.find_spec(package) is None:
            return False
        importlib.import_module(package)  # registers torch.<name>
    return hasattr(torch, name) and bool(_runtime(name).is_available())


def _why_not(name: str) -> str:
    package = ACCELERATORS[name].package
    if package is not None and importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    return f"torch {torch.__version__} finds no such device"


def _runtime(name: str) -> ModuleType:
    module: ModuleType = getattr(torch, name)
    return module

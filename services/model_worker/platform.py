"""The device a worker runs on. Everything that depends on it is asked here and nowhere else.

The CPU is tested everywhere; CUDA (NVIDIA, and AMD through ROCm, which torch also calls `cuda`) where the
tests find one. XPU and NPU go as far as torch itself knows them: their plug-ins are looked up, never imported unless
present.
"""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from radixmesh.services.model_worker.errors import PlatformError


@dataclass(frozen=True, slots=True)
class Platform:
    """One device and what to use on it."""

    name: str  # cpu, cuda, xpu, npu
    device: torch.device
    distributed_backend: str  # torch.distributed's name; with an accelerator, one for its tensors and one for the CPU's
    attention_backend: str  # the default key of `attention.create_backend`

    @property
    def synchronous(self) -> bool:
        """Whether results are there when a call returns, so that reading one costs nothing."""
        return self.name == "cpu"

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""
        if self.name != "cpu":
            _runtime(self.name).synchronize()

    def serving_dtype(self, checkpoint: torch.dtype, kernels: bool = False) -> torch.dtype:
        """The dtype to serve a checkpoint in by default: its own, unless that is slow or missing here.

        kernels: the CPU kernels compute, for which none is slow.
        """
        if self.name == "cpu":
            return checkpoint if kernels else _torch_cpu_dtype(checkpoint)
        if self.name == "cuda" and checkpoint is torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
            return torch.float16
        return checkpoint

    def free_memory(self) -> int:
        """Bytes that can still be allocated on the device."""
        if self.name == "cpu":
            return _cpu_free_memory()
        free: int = _runtime(self.name).mem_get_info(self.device)[0]
        return free

    def total_memory(self) -> int:
        """Bytes of the device, or of the container's limit on a CPU."""
        if self.name == "cpu":
            return _cpu_total_memory()
        total: int = _runtime(self.name).mem_get_info(self.device)[1]
        return total

    def memory_budget(self, fraction: float) -> int:
        """Bytes left for the KV cache when the worker may hold `fraction` of the device's memory in all.

        Ask once the weights are loaded: what is in use by then is taken off.
        """
        used = self.total_memory() - self.free_memory()
        return max(0, int(self.total_memory() * fraction) - used)


# name: (package torch needs beyond itself, torch.distributed backend)
_ACCELERATORS: dict[str, tuple[str | None, str]] = {
    "cuda": (None, "nccl"),
    "xpu": (None, "xccl"),
    "npu": ("torch_npu", "hccl"),
}
PLATFORMS = ("cpu", *_ACCELERATORS)


def get_platform(name: str = "auto", index: int = 0) -> Platform:
    """The platform `name`, or with "auto" the first accelerator found, else the CPU.

    `index` picks the device of its kind. Raises `PlatformError` when it is not there.
    """
    if name == "auto":
        name = next((kind for kind in _ACCELERATORS if _available(kind)), "cpu")
    if name == "cpu":
        return Platform("cpu", torch.device("cpu"), "gloo", "torch")
    if name not in _ACCELERATORS:
        raise PlatformError(f"unknown device {name!r} (known: auto, {', '.join(PLATFORMS)})")
    if not _available(name):
        raise PlatformError(f"device {name!r} is not available: {_why_not(name)}")
    count = _runtime(name).device_count()
    if index >= count:
        raise PlatformError(f"device {name}:{index} does not exist: {count} found")
    return Platform(name, torch.device(name, index), f"cpu:gloo,{name}:{_ACCELERATORS[name][1]}", "torch")


def _available(name: str) -> bool:
    package = _ACCELERATORS[name][0]
    if package is not None:
        if importlib.util.find_spec(package) is None:
            return False
        importlib.import_module(package)  # registers torch.<name>
    return hasattr(torch, name) and bool(_runtime(name).is_available())


def _why_not(name: str) -> str:
    package = _ACCELERATORS[name][0]
    if package is not None and importlib.util.find_spec(package) is None:
        return f"the package {package} is not installed"
    return f"torch {torch.__version__} finds no such device"


def _runtime(name: str) -> ModuleType:
    module: ModuleType = getattr(torch, name)
    return module


def _torch_cpu_dtype(checkpoint: torch.dtype) -> torch.dtype:
    # Without AVX-512, oneDNN has no 16-bit matmul and torch falls back to a loop that is slower than float32
    # (3072 x 1024 on an AVX2 EPYC, 32 rows: 11.6 ms in bfloat16, 4.2 ms in float32).
    mkldnn = torch.ops.mkldnn
    if checkpoint is torch.float16 and mkldnn._is_mkldnn_fp16_supported():
        return torch.float16
    if checkpoint is not torch.float32 and mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _cgroup_bytes(file: str) -> int | None:
    """A number of this container's memory controller (cgroup v2), or None where there is no limit."""
    try:
        text = Path("/sys/fs/cgroup", file).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cpu_total_memory() -> int:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(physical, _cgroup_bytes("memory.max") or physical)


def _cpu_free_memory() -> int:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        # MemAvailable counts the page cache, which gives way (the weights just read are in it).
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used + _cgroup_reclaimable())
    return free


def _cgroup_reclaimable() -> int:
    """Bytes of page cache counted against this container that the kernel gives back under pressure."""
    stat = Path("/sys/fs/cgroup/memory.stat")
    if not stat.exists():
        return 0
    fields = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
    return int(fields.get("inactive_file", 0))

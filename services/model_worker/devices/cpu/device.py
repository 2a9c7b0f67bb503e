"""The CPU: the kernels in `src/` where they can be had, else torch.

fused     one C++ call a step; models on one rank that are described in full
native    layer by layer over packed weights and native attention; several ranks, families with layers of their own
oneDNN    the same over oneDNN's linear layers, where its products are much faster
torch     without a compiler, or where the kernels' numbers are wrong
"""

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.devices.cpu import memory
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder, unfusable
from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention, PackedLinear
from radixmesh.services.model_worker.devices.cpu.native import Native, native
from radixmesh.services.model_worker.devices.cpu.onednn import OneDnnLinear, onednn_is_faster
from radixmesh.services.model_worker.devices.cpu.selfcheck import selfcheck
from radixmesh.services.model_worker.devices.device import Execution, Wishes
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.device import in_torch, unknown_attention
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.errors import DeviceError
from radixmesh.services.model_worker.forward.attention import AttentionBackend
from radixmesh.services.model_worker.forward.description import ModelDescription
from radixmesh.services.model_worker.forward.traits import DeviceTraits

log = logging.getLogger(__name__)


class CpuDevice:
    """A `Device`: the host."""

    name = "cpu"
    collectives = "gloo"
    traits = DeviceTraits(synchronous=True)

    def __init__(self, kernels: Native | None = None) -> None:
        """`kernels`: trusted, and set to the number of threads; None: torch computes."""
        self.torch_device = torch.device("cpu")
        self._kernels = kernels

    @classmethod
    def open(cls, threads: int, progress: Callable[[str], None]) -> "CpuDevice":
        """With the kernels if they can be had, compiled now if this machine has not yet.

        progress: called with what is being done.
        """
        progress("loading the CPU kernels")
        kernels = native(lambda: progress("compiling the CPU kernels"))
        if kernels is None:
            return cls()
        kernels.set_threads(threads)
        if wrong := selfcheck(kernels):
            log.error("the CPU kernels do not work on this CPU, torch computes instead: %s", wrong)
            return cls()
        return cls(kernels)

    def synchronize(self) -> None:
        """Nothing is ever queued."""

    def total_memory(self) -> int:
        return memory.total_memory()

    def free_memory(self) -> int:
        return memory.free_memory()

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """They take no time and no memory until they are written: torch would write zeros to all of them."""
        return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)

    def serving_dtype(self, checkpoint: torch.dtype) -> torch.dtype:
        """For the kernels, none is slow."""
        return checkpoint if self._kernels is not None else _torchs_dtype(checkpoint)

    def choose(self, model: ModelDescription, wishes: Wishes) -> Execution:
        kernels = self._kernels
        if kernels is None:
            return in_torch(wishes)
        attention = _attention(wishes.attention, kernels)
        if not wishes.quantization and onednn_is_faster(kernels, model.dtype):
            log.info("linear layers run in oneDNN: on this CPU its products are more than twice as fast")
            return Execution(attention, OneDnnLinear(), TorchExecutor)
        int16 = kernels.prefers_int16 and not wishes.exact_weights
        why = unfusable(model) or (f"attention is to be {wishes.attention}" if wishes.attention == "torch" else "")
        packed = f", weights in {wishes.quantization}" if wishes.quantization else ""
        if why:
            log.info("steps run layer by layer (%s)%s", why, packed)
            return Execution(attention, PackedLinear(kernels, wishes.quantization, int16), TorchExecutor)
        log.info("steps run in the fused CPU kernels%s", packed)
        deferred = Deferred()
        options: dict[str, Any] = {"quantization": wishes.quantization, "int16": int16, "deferred": deferred}
        return Execution(attention, TorchLinear(), functools.partial(FusedDecoder, **options), deferred)


def _attention(name: str, kernels: Native) -> AttentionBackend:
    if name == "torch":
        return TorchAttention()
    if name not in ("", "native"):
        raise DeviceError(unknown_attention(name, "native", "torch"))
    return NativeAttention(kernels)


def _torchs_dtype(checkpoint: torch.dtype) -> torch.dtype:
    # Without AVX-512, oneDNN has no 16-bit matmul and torch falls back to a loop that is slower than float32
    # (3072 x 1024 on an AVX2 EPYC, 32 rows: 11.6 ms in bfloat16, 4.2 ms in float32).
    mkldnn = torch.ops.mkldnn
    if checkpoint is torch.float16 and mkldnn._is_mkldnn_fp16_supported():
        return torch.float16
    if checkpoint is not torch.float32 and mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32

"""oneDNN's linear layers, for CPUs with matrix units (AMX) that the kernels here do not use."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.native import Native
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.forward.linear import LinearLayer

_ROWS, _SIZE, _ROUNDS = 256, 1024, 5
_FACTOR = 2.0  # oneDNN gives up the fused decoder: it has to be faster by that


class OneDnnLinear(TorchLinear):
    """A `LinearMethod`: weights in oneDNN's own order. Needs a CPU on which oneDNN has the weights' dtype."""

    def finish(self, layer: LinearLayer) -> None:
        """Reorders, and frees what was there, but for a tied head's weight: the embedding still reads that."""
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, None)
        object.__setattr__(layer, "packed", packed)
        if not layer.weight_is_shared:
            layer.weight.data = torch.empty(0, dtype=layer.weight.dtype)

    def apply(self, layer: LinearLayer, x: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.data
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, layer.packed, bias, "none", [], "")
        return out


def onednn_is_faster(native: Native, dtype: torch.dtype) -> bool:
    """Whether prompts in `dtype` are much faster in oneDNN on this CPU. Measures for some milliseconds.

    Set both sides' threads before.
    """
    if dtype is torch.float32 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    weight, x = torch.randn(_SIZE, _SIZE).to(dtype), torch.randn(_ROWS, _SIZE)
    packed = PackedWeight(native, [weight], form=Format.of("", dtype=dtype, int16=native.prefers_int16))
    rounded = x.to(dtype)
    ours = _best(lambda: packed.multiply(x))
    theirs = _best(lambda: F.linear(rounded, weight))
    return theirs * _FACTOR < ours


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs, the first one not counted."""
    run()
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)

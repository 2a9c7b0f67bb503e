"""Compares the kernels with torch before they are trusted with a model.

They are compiled for the very CPU they run on, and no test has seen every CPU. A few milliseconds at start tell a
miscompiled or mistaken path by its numbers; then torch serves instead.
"""

import numpy as np
import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention
from radixmesh.services.model_worker.devices.cpu.native import Native
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
from radixmesh.services.model_worker.devices.device import Quantization
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec

_INPUTS, _OUTPUTS = 256, 75
_ROWS = (1, 3, 33)
_HEADS, _KV_HEADS, _HEAD_DIM, _PAGE = 4, 2, 32, 4
# Relative errors: storing weights in 8 or 4 bits costs 0.7% and 9%, all else is rounding.
_BOUNDS: dict[Quantization, float] = {"": 0.01, "w8a16": 0.03, "w4a16": 0.25}


def selfcheck(native: Native) -> str:
    """What the kernels compute wrongly here, in a few words; empty if nothing was found."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for quantization, bound in _BOUNDS.items():
            for dtype in (torch.bfloat16, torch.float32):
                error = _linear_error(native, quantization, dtype, generator)
                if not error <= bound:
                    return f"a linear layer in {quantization or dtype} is off by {error:.2g}"
        for dtype in (torch.bfloat16, torch.float32):
            error = _attention_error(native, dtype, generator)
            if not error <= 0.02:
                return f"attention over a cache in {dtype} is off by {error:.2g}"
    return ""


def _linear_error(native: Native, quantization: Quantization, dtype: torch.dtype, generator: torch.Generator) -> float:
    weight = torch.randn(_OUTPUTS, _INPUTS, generator=generator).to(dtype)
    form = Format.of(quantization, dtype=dtype, int16=native.prefers_int16)
    packed = PackedWeight(native, [weight], form=form)
    worst = 0.0
    for rows in _ROWS:
        x = torch.randn(rows, _INPUTS, generator=generator)
        worst = max(worst, _relative(packed.multiply(x), x @ weight.float().T))
    return worst


def _attention_error(native: Native, dtype: torch.dtype, generator: torch.Generator) -> float:
    """A prompt chunk behind a cached prefix, and a decode."""
    spec = KVGroupSpec((0,), _KV_HEADS, _HEAD_DIM, _PAGE, dtype)
    pools = [KVCache([spec], 8, torch.device("cpu")) for _ in range(2)]
    for mine, theirs in ((pools[0].keys, pools[1].keys), (pools[0].values, pools[1].values)):
        mine[0].copy_(torch.randn(mine[0].shape, generator=generator))
        theirs[0].copy_(mine[0])
    batch = ForwardBatch.from_numpy(
        token_ids=np.zeros(6, np.int64),
        positions=np.array([7, 8, 9, 10, 11, 10]),
        kv_locations=[np.array([7, 8, 9, 10, 11, 26])],
        query_start=np.array([0, 5, 6]),
        context_len=np.array([12, 11]),
        block_tables=[np.array([[0, 1, 2], [4, 5, 6]], np.int32)],
        logit_rows=np.array([4, 5]),
        device=torch.device("cpu"),
    )
    q = torch.randn(6, _HEADS, _HEAD_DIM, generator=generator).to(dtype)
    k, v = (torch.randn(6, _KV_HEADS, _HEAD_DIM, generator=generator).to(dtype) for _ in range(2))
    outputs = []
    for backend, kv in ((NativeAttention(native), pools[0]), (TorchAttention(), pools[1])):
        plan = backend.plan(batch, kv)
        outputs.append(backend.forward(plan, kv, 0, q, k, v, _HEAD_DIM**-0.5, None).float())
    return _relative(*outputs)


def _relative(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference by norm of what is expected; NaN if either is not finite."""
    return float((got - expected).norm() / expected.norm())

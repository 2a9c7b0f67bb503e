"""The kernels one by one, for models that run layer by layer in torch: several ranks, families that are not fused.
`PackedLinear` and `NativeAttention` go into what its layers are built with (`layers.linear.Build`).
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.native import (
    KINDS,
    Batch,
    Heads,
    Native,
    PagedLayer,
    Pages,
    check,
    pointer,
)
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
from radixmesh.services.model_worker.devices.device import Quantization
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.forward.linear import LinearLayer


class PackedLinear(TorchLinear):
    """A `LinearMethod`: weights in panels, in their own dtype or in 8 or 4 bits; sums in float32."""

    def __init__(self, native: Native, quantization: Quantization = "", int16: bool | None = None) -> None:
        """int16: hold bfloat16 as integers (see `Format`); by default where that is faster."""
        self.native = native
        self.quantization = quantization
        self.int16 = native.prefers_int16 if int16 is None else int16

    def finish(self, layer: LinearLayer) -> None:
        """Packs, and frees what was packed, but for a tied head's weight: the embedding still reads that."""
        biases = None if layer.bias is None else [layer.bias.data]
        form = Format.of(self.quantization, layer.is_head, layer.weight.dtype, self.int16)
        packed = PackedWeight(self.native, [layer.weight.data], biases, form)
        object.__setattr__(layer, "packed", packed)  # neither parameter nor module
        if not layer.weight_is_shared:
            layer.weight.data = torch.empty(0, dtype=layer.weight.dtype)

    def apply(self, layer: LinearLayer, x: Tensor) -> Tensor:
        packed: PackedWeight = layer.packed
        return packed.multiply(x.reshape(-1, packed.k).float().contiguous()).to(x.dtype).view(*x.shape[:-1], packed.n)

    def __repr__(self) -> str:
        return f"PackedLinear({self.quantization!r})"


class NativeAttention:
    """An `AttentionBackend`: decodes and prompt chunks of a step in one call per layer."""

    def __init__(self, native: Native) -> None:
        self.native = native

    def plan(self, batch: ForwardBatch, kv: KVCache) -> Any:
        """The batch's arrays as the library takes them, by group; holds the batch alive."""
        pages, tables = group_pages(batch)
        steps = [
            Batch(
                query_start=pointer(batch.query_start),
                context_len=pointer(batch.context_len),
                pages=ctypes.pointer(of_group),
                tokens=len(batch.token_ids),
                sequences=len(batch.context_len),
            )
            for of_group in pages
        ]
        return steps, batch, tables

    def forward(
        self, plan: Any, kv: KVCache, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """See `AttentionBackend.forward`. Raises IndexError for a page that does not exist."""
        group = kv.group_of[layer]
        spec = kv.pools[group].spec
        pool = PagedLayer(
            pointer(kv.keys[layer]),
            pointer(kv.values[layer]),
            kv.pools[group].num_pages,
            KINDS[spec.dtype],
            q.shape[1],
            spec.num_kv_heads,
            spec.head_dim,
            spec.page_size,
        )
        out = torch.empty(q.shape[0], q.shape[1], spec.head_dim)
        heads = [_heads(x, spec.head_dim) for x in (q, k, v)]
        arguments = (*(ctypes.byref(view) for view, _ in heads), scale, window or 0, pointer(out))
        check(self.native.library.rm_attention(ctypes.byref(pool), ctypes.byref(plan[0][group]), *arguments))
        return out.to(q.dtype)


def group_pages(batch: ForwardBatch) -> tuple[ctypes.Array[Pages], list[Tensor]]:
    """Where keys and values lie, by group, as the library takes it; the tensors are to be kept alive."""
    tables = [table.contiguous() for table in batch.block_tables]
    pages = (Pages * len(tables))()
    for of_group, locations, table in zip(pages, batch.kv_locations, tables, strict=True):
        of_group.kv_locations, of_group.tables, of_group.table_width = (
            pointer(locations),
            pointer(table),
            table.shape[1],
        )
    return pages, tables


def _heads(x: Tensor, size: int) -> tuple[Heads, Tensor]:
    """x [T, heads, size], perhaps a view with gaps between its tokens; the tensor is to be kept alive."""
    if x.stride(2) != 1 or x.stride(1) != size:
        x = x.contiguous()
    return Heads(x.data_ptr(), x.stride(0), KINDS[x.dtype]), x

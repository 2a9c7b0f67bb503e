"""The reference attention: torch operations only, any device.

Decodes of the whole batch are padded, gathered and attended in one call; prompt chunks go one by one, each
through the fused kernel. All of a chunk's or a batch's indices and masks are made once per step and window,
not per layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVPool


@dataclass(frozen=True, slots=True, eq=False)
class _DecodeKeys:
    """Which cached rows to attend to, and an additive mask over them."""

    rows: Tensor  # int64 [n * kv_heads * keys], into the pool's rows
    mask: Tensor | None  # [n, 1, 1, keys] in q's dtype, 0 or -inf; None: nothing to hide


@dataclass(frozen=True, slots=True, eq=False)
class _ChunkKeys:
    """The same for a chunk."""

    rows: Tensor | None  # int64 [kv_heads * keys]; None: the chunk is all there is, its own k and v do
    mask: Tensor | None  # [queries, keys]; None: plainly causal


class _Decodes:
    """The sequences with one new token."""

    def __init__(self, batch: ForwardBatch, table: Tensor, pool: KVPool, sequences: np.ndarray) -> None:
        host = batch.host_context_len[sequences]
        self.pool = pool
        self.longest = int(host.max())
        self.shortest = int(host.min())
        self.count = len(sequences)
        index = torch.from_numpy(sequences).to(batch.token_ids.device)
        self.tokens = batch.query_start[index]
        self.context_len = batch.context_len[index]
        self.block_tables = table[index]
        self._keys: dict[int | None, _DecodeKeys] = {}

    def keys(self, window: int | None, dtype: torch.dtype) -> _DecodeKeys:
        if window not in self._keys:
            self._keys[window] = self._make_keys(window, dtype)
        return self._keys[window]

    def _make_keys(self, window: int | None, dtype: torch.dtype) -> _DecodeKeys:
        ends = self.context_len.unsqueeze(1)
        width = self.longest if window is None else min(self.longest, window)
        starts = torch.zeros_like(ends) if window is None else (ends - window).clamp(min=0)
        positions = starts + torch.arange(width, device=ends.device)
        outside = positions >= ends
        # Padding repeats the sequence's own last key: whatever stale pages hold (NaN even), 0 * finite is 0.
        positions = torch.minimum(positions, ends - 1)
        rows = self.pool.head_rows(_locations(self.block_tables, positions, self.pool.spec.page_size))
        rows = rows.transpose(0, 1).reshape(-1)
        mask = None
        if self.shortest < width:
            mask = torch.zeros(outside.shape, dtype=dtype, device=ends.device)
            mask = mask.masked_fill_(outside, float("-inf")).view(self.count, 1, 1, width)
        return _DecodeKeys(rows, mask)

    def attend(self, cached: "_Cached", q: Tensor, scale: float, window: int | None) -> Tensor:
        """q [n, heads, head_dim] -> the same. The queries of one kv head stand in for the query length."""
        keys = self.keys(window, q.dtype)
        heads, size = self.pool.spec.num_kv_heads, q.shape[-1]
        k = _gather(cached.keys, keys.rows, size).view(self.count, heads, -1, size)
        v = _gather(cached.values, keys.rows, size).view(self.count, heads, -1, size)
        grouped = q.reshape(self.count, heads, -1, size)
        out = F.scaled_dot_product_attention(grouped, k, v, keys.mask, scale=scale)
        return out.reshape(q.shape)


class _Chunk:
    """One sequence with several new tokens (or one of many, when its prefix is cached)."""

    def __init__(self, batch: ForwardBatch, table: Tensor, pool: KVPool, sequence: int) -> None:
        self.pool = pool
        self.start, self.end = (int(x) for x in batch.host_query_start[sequence : sequence + 2])
        self.total = int(batch.host_context_len[sequence])
        self.prefix = self.total - (self.end - self.start)
        self.block_table = table[sequence : sequence + 1]
        self._keys: dict[int | None, _ChunkKeys] = {}

    def keys(self, window: int | None, dtype: torch.dtype) -> _ChunkKeys:
        if window not in self._keys:
            self._keys[window] = self._make_keys(window, dtype)
        return self._keys[window]

    def _make_keys(self, window: int | None, dtype: torch.dtype) -> _ChunkKeys:
        if window is not None and window >= self.total:
            window = None
        if self.prefix == 0 and window is None:
            return _ChunkKeys(None, None)
        device = self.block_table.device
        first = 0 if window is None else max(0, self.prefix - window + 1)
        keys = torch.arange(first, self.total, device=device)
        queries = torch.arange(self.prefix, self.total, device=device).unsqueeze(1)
        hidden = keys > queries
        if window is not None:
            hidden |= keys <= queries - window
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
        if self.prefix == 0:
            return _ChunkKeys(None, mask)
        locations = _locations(self.block_table, keys.unsqueeze(0), self.pool.spec.page_size)
        return _ChunkKeys(self.pool.head_rows(locations).reshape(-1), mask)

    def attend(self, cached: "_Cached", q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """The step's whole q, k and v -> this chunk's [n, heads, head_dim]."""
        q = q[self.start : self.end]
        heads, size = self.pool.spec.num_kv_heads, q.shape[-1]
        keys = self.keys(window, q.dtype)
        if keys.rows is None:
            k, v = k[self.start : self.end].transpose(0, 1), v[self.start : self.end].transpose(0, 1)
        else:
            k = _gather(cached.keys, keys.rows, size).view(heads, -1, size)
            v = _gather(cached.values, keys.rows, size).view(heads, -1, size)
        # [kv_heads, group, tokens, head_dim]: the group's queries share one k and v, by stride 0, without a
        # copy.
        grouped = q.reshape(q.shape[0], heads, -1, size).permute(1, 2, 0, 3)
        shape = (heads, grouped.shape[1], -1, size)
        out = F.scaled_dot_product_attention(
            grouped,
            k.unsqueeze(1).expand(shape),
            v.unsqueeze(1).expand(shape),
            keys.mask,
            is_causal=keys.mask is None,
            scale=scale,
        )
        return out.permute(2, 0, 1, 3).reshape(q.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Cached:
    """One layer's part of its pool."""

    keys: Tensor
    values: Tensor


class _Plan:
    """One step, for the layers of one group: where to write, which sequences decode, which are chunks."""

    def __init__(self, batch: ForwardBatch, group: int, pool: KVPool) -> None:
        self.write_rows = pool.head_rows(batch.kv_locations[group]).transpose(0, 1).reshape(-1)
        table = batch.block_tables[group]
        lengths = np.diff(batch.host_query_start)
        single = np.flatnonzero(lengths == 1)
        self.decodes = _Decodes(batch, table, pool, single) if len(single) else None
        self.all_decode = len(single) == len(lengths)
        self.chunks = [_Chunk(batch, table, pool, int(index)) for index in np.flatnonzero(lengths > 1)]


class TorchAttention:
    """See `AttentionBackend`."""

    def plan(self, batch: ForwardBatch, kv: KVCache) -> list[_Plan]:
        return [_Plan(batch, group, pool) for group, pool in enumerate(kv.pools)]

    def forward(
        self,
        plan: list[_Plan],
        kv: KVCache,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        size = q.shape[-1]
        mine, cached = plan[kv.group_of[layer]], _Cached(kv.keys[layer], kv.values[layer])
        cached.keys.view(-1, size).index_copy_(0, mine.write_rows, k.reshape(-1, size))
        cached.values.view(-1, size).index_copy_(0, mine.write_rows, v.reshape(-1, size))
        decodes = mine.decodes
        if decodes is not None and mine.all_decode:  # no picking rows and putting them back
            return decodes.attend(cached, q, scale, window)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        if decodes is not None:
            out[decodes.tokens] = decodes.attend(cached, q[decodes.tokens], scale, window)
        for chunk in mine.chunks:
            out[chunk.start : chunk.end] = chunk.attend(cached, q, k, v, scale, window)
        return out


def _locations(block_tables: Tensor, positions: Tensor, page_size: int) -> Tensor:
    """Positions int64 [n, m] of n sequences -> page * page_size + offset, int64 [n, m]."""
    pages = block_tables.gather(1, positions // page_size).long()
    return pages * page_size + positions % page_size


def _gather(pool: Tensor, rows: Tensor, size: int) -> Tensor:
    return pool.view(-1, size).index_select(0, rows)

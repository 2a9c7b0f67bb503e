"""One step's input to a model: any mix of prompt chunks and decodes, flattened without padding.

sequence      0 (chunk of 3)    1 (decode)   2 (chunk of 2)
token_ids     a  b  c           d            e  f              T = 6
query_start   0                 3            4        6        B + 1 = 4
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class ForwardBatch:
    """T tokens of B sequences; R rows want logits. Built once per step, read by every layer.

    Where keys and values lie differs between the groups of layers that `KVCache` has a pool for.

    The `host_` arrays repeat two tensors for Python's use: reading those from a GPU would stall it.
    """

    token_ids: Tensor  # int64 [T]
    positions: Tensor  # int64 [T], from 0 in each sequence
    kv_locations: tuple[Tensor, ...]  # by group, int64 [T]: page * page_size + offset, where each token's K and V go
    query_start: Tensor  # int64 [B + 1]: sequence b owns tokens query_start[b]:query_start[b + 1], at least one
    context_len: Tensor  # int64 [B]: tokens of the sequence in the cache after this step
    # by group, int32 [B, max_pages]: page ids in order; entries past the context, or behind a window, are not read
    block_tables: tuple[Tensor, ...]
    logit_rows: Tensor  # int64 [R]: indices into T
    host_query_start: NDArray[np.int64]  # [B + 1]
    host_context_len: NDArray[np.int64]  # [B]
    # int64 [T], or None; read only by models with `config.rope.length_dependent`: the length each token's
    # sequence had when admitted (its prompt). See `layers.rotary.DynamicRotaryEmbedding`.
    rope_length: Tensor | None = None

    @classmethod
    def from_numpy(
        cls,
        token_ids: IntArray,
        positions: IntArray,
        kv_locations: Sequence[IntArray],
        query_start: IntArray,
        context_len: IntArray,
        block_tables: Sequence[IntArray],
        logit_rows: IntArray,
        device: torch.device,
        rope_length: IntArray | None = None,
    ) -> "ForwardBatch":
        """Convert and move. On the CPU, arrays of the right dtype share their memory with the tensors."""

        def move(array: IntArray, dtype: type[np.integer] = np.int64) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype=dtype)).to(device, non_blocking=True)

        return cls(
            token_ids=move(token_ids),
            positions=move(positions),
            kv_locations=tuple([move(locations) for locations in kv_locations]),
            query_start=move(query_start),
            context_len=move(context_len),
            block_tables=tuple([move(table, np.int32) for table in block_tables]),
            logit_rows=move(logit_rows),
            host_query_start=np.asarray(query_start, dtype=np.int64),
            host_context_len=np.asarray(context_len, dtype=np.int64),
            rope_length=None if rope_length is None else move(rope_length),
        )

"""The paged pool of keys and values.

Layout, per layer and for K and V each: `[num_pages, kv_heads, page_size, head_dim]`.

- A decode kernel walks one (sequence, kv head) at a time: with the head outside the page's tokens it streams
  `page_size * head_dim` contiguous elements per page instead of one strided row per token, which is what the
  hardware prefetcher, AVX-512 and AMX tiles want.
- A whole page of a layer is one contiguous block, so pages can be copied, offloaded and sent as single
ranges.
- It is FlashInfer's "HND" layout, so the same pool serves the GPU backends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KVCacheSpec:
    """The shape of one rank's pool, but for the number of pages."""

    num_layers: int
    num_kv_heads: int  # of this rank
    head_dim: int
    page_size: int  # tokens per page, >= 1
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.page_size < 1:
            raise ValueError(f"page_size must be at least 1, not {self.page_size}")

    @property
    def page_bytes(self) -> int:
        """Bytes one page takes over all layers, K and V together."""
        elements = self.num_layers * 2 * self.num_kv_heads * self.page_size * self.head_dim
        return elements * self.dtype.itemsize

    def pages_within(self, budget: int) -> int:
        """How many pages fit in `budget` bytes; may be 0."""
        return max(budget, 0) // self.page_bytes


Zeros: TypeAlias = Callable[..., Tensor]


class KVCache:
    """`keys[layer]` and `values[layer]`: `[num_pages, kv_heads, page_size, head_dim]`."""

    def __init__(self, spec: KVCacheSpec, num_pages: int, device: torch.device, zeros: Zeros = torch.zeros) -> None:
        """`zeros`: the device's way of making them, called as torch's is."""
        if num_pages < 1:
            raise ValueError(f"a KV cache needs at least one page of {spec.page_bytes} bytes, not {num_pages}")
        self.spec = spec
        self.num_pages = num_pages
        shape = (num_pages, spec.num_kv_heads, spec.page_size, spec.head_dim)

        self.keys = [zeros(shape, dtype=spec.dtype, device=device) for _ in range(spec.num_layers)]
        self.values = [zeros(shape, dtype=spec.dtype, device=device) for _ in range(spec.num_layers)]

    def head_rows(self, locations: Tensor) -> Tensor:
        """Rows of the pool seen as `[num_pages * kv_heads * page_size, head_dim]`.

        `locations` int64 [...]: page * page_size + offset. Returns int64 [kv_heads, ...].
        """
        size, heads = self.spec.page_size, self.spec.num_kv_heads
        page, offset = locations // size, locations % size
        head = torch.arange(heads, device=locations.device).view(-1, *(1,) * locations.dim())
        return (page * heads + head) * size + offset

"""The paged pools of keys and values: one for each group of layers that need theirs for equally long.

Layout, per layer and for K and V each: `[num_pages, kv_heads, page_size, head_dim]`.

- A decode kernel walks one (sequence, kv head) at a time: with the head outside the page's tokens it streams
  `page_size * head_dim` contiguous elements per page instead of one strided row per token, which is what the
  hardware prefetcher, AVX-512 and AMX tiles want.
- A whole page of a layer is one contiguous block, so pages can be copied, offloaded and sent as single
  ranges.
- It is FlashInfer's "HND" layout, so the same pool serves the GPU backends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from radixmesh.shared import kv_windows


@dataclass(frozen=True, slots=True)
class KVGroupSpec:
    """The shape of one rank's pool for some layers, but for the number of pages."""

    layers: tuple[int, ...]  # the model's, by number
    num_kv_heads: int  # of this rank
    head_dim: int
    page_size: int  # tokens per page, >= 1
    dtype: torch.dtype
    window: int | None = None  # tokens behind which nothing is read any more; None: all are read

    def __post_init__(self) -> None:
        if self.page_size < 1:
            raise ValueError(f"page_size must be at least 1, not {self.page_size}")

    @property
    def page_bytes(self) -> int:
        """Bytes one page takes over all layers, K and V together."""
        elements = len(self.layers) * 2 * self.num_kv_heads * self.page_size * self.head_dim
        return elements * self.dtype.itemsize

    @property
    def least_pages(self) -> int:
        """With fewer a window cannot move on."""
        return kv_windows.least_pages(self.window, self.page_size)

    def longest(self, num_pages: int) -> int | None:
        """Tokens of the longest sequence for which `num_pages` are enough; None: for any."""
        return kv_windows.longest_sequence(num_pages, self.window, self.page_size)


Zeros: TypeAlias = Callable[..., Tensor]
"""Makes a tensor of zeros, called as `torch.zeros` is."""


class KVPool:
    """One group's pages."""

    def __init__(self, spec: KVGroupSpec, num_pages: int, device: torch.device, zeros: Zeros) -> None:
        if num_pages < 1:
            raise ValueError(f"a KV cache needs at least one page of {spec.page_bytes} bytes, not {num_pages}")
        self.spec = spec
        self.num_pages = num_pages
        shape = (num_pages, spec.num_kv_heads, spec.page_size, spec.head_dim)

        self.keys = [zeros(shape, dtype=spec.dtype, device=device) for _ in spec.layers]
        self.values = [zeros(shape, dtype=spec.dtype, device=device) for _ in spec.layers]

    def head_rows(self, locations: Tensor) -> Tensor:
        """Rows of the pool seen as `[num_pages * kv_heads * page_size, head_dim]`.

        `locations` int64 [...]: page * page_size + offset. Returns int64 [kv_heads, ...].
        """
        size, heads = self.spec.page_size, self.spec.num_kv_heads
        page, offset = locations // size, locations % size
        head = torch.arange(heads, device=locations.device).view(-1, *(1,) * locations.dim())
        return (page * heads + head) * size + offset


class KVCache:
    """`keys[layer]` and `values[layer]` of all the model's layers: `[num_pages, kv_heads, page_size, head_dim]`."""

    def __init__(
        self,
        specs: Sequence[KVGroupSpec],
        num_pages: Sequence[int] | int,
        device: torch.device,
        zeros: Zeros = torch.zeros,
    ) -> None:
        """`specs` have every layer once; `num_pages` are of each group; `zeros` is the device's way of making them."""
        counts = [num_pages] * len(specs) if isinstance(num_pages, int) else num_pages
        self.pools = [KVPool(spec, count, device, zeros) for spec, count in zip(specs, counts, strict=True)]
        places = {layer: (group, at) for group, spec in enumerate(specs) for at, layer in enumerate(spec.layers)}
        order = [places[layer] for layer in range(len(places))]
        self.group_of = [group for group, _ in order]
        """By layer."""
        self.keys = [self.pools[group].keys[at] for group, at in order]
        self.values = [self.pools[group].values[at] for group, at in order]

    @property
    def num_bytes(self) -> int:
        return sum(pool.num_pages * pool.spec.page_bytes for pool in self.pools)


def pages_within(specs: Sequence[KVGroupSpec], most: Sequence[int], budget: int) -> list[int]:
    """How many pages of each group fit in `budget` bytes: equally many, but of none more than its `most`; may be 0."""
    low, high = 0, max(most)
    while low < high:
        middle = (low + high + 1) // 2
        taken = sum(min(middle, bound) * spec.page_bytes for spec, bound in zip(specs, most, strict=True))
        low, high = (middle, high) if taken <= budget else (low, middle - 1)
    return [min(low, bound) for bound in most]

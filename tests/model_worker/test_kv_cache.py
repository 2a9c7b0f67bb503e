"""The pool's arithmetic, and attention over it against a plain loop."""

import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from radixmesh.services.model_worker.devices.choice import create_backend
from radixmesh.services.model_worker.errors import PlatformError
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec, pages_within

CPU = torch.device("cpu")


def test_page_bytes_and_budget() -> None:
    spec = KVGroupSpec(layers=tuple(range(28)), num_kv_heads=8, head_dim=128, page_size=16, dtype=torch.bfloat16)
    assert spec.page_bytes == 28 * 2 * 8 * 128 * 16 * 2
    assert pages_within([spec], [1000], 10 * spec.page_bytes + 5) == [10]
    assert pages_within([spec], [7], 10 * spec.page_bytes + 5) == [7]
    assert pages_within([spec], [1000], -1) == [0]
    cache = KVCache([KVGroupSpec((0, 1), 3, 8, 4, torch.float32)], 5, CPU)
    assert sum(pool.nbytes for pool in cache.keys + cache.values) == 5 * cache.num_bytes // 5


def test_impossible_pools_are_refused() -> None:
    with pytest.raises(ValueError, match="page_size"):
        KVGroupSpec((0,), 1, 2, 0, torch.float32)
    with pytest.raises(ValueError, match="at least one page"):
        KVCache([KVGroupSpec((0,), 1, 2, 1, torch.float32)], 0, CPU)
    with pytest.raises(PlatformError, match="unknown attention backend"):
        create_backend("telepathy")


def plain_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: int, window: int | None
) -> torch.Tensor:
    """One query [heads, d] at `position` over keys and values [kv_heads, tokens, d]."""
    group = q.shape[0] // keys.shape[0]
    first = 0 if window is None else max(0, position - window + 1)
    out = []
    for head in range(q.shape[0]):
        k, v = (pool[head // group, first : position + 1] for pool in (keys, values))
        scores = torch.softmax(k @ q[head] / math.sqrt(q.shape[1]), 0)
        out.append(scores @ v)
    return torch.stack(out)


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_mixed_batches_equal_a_plain_loop(page_size: int, window: int | None) -> None:
    heads, kv_heads, size = 6, 2, 8
    prefixes, counts = [0, 9, 0, 14, 3], [7, 1, 1, 5, 1]  # whole prompt, decode, one-token prompt, chunk, decode
    generator = torch.Generator().manual_seed(page_size)
    totals = [prefix + count for prefix, count in zip(prefixes, counts, strict=True)]
    cache = KVCache([KVGroupSpec((0,), kv_heads, size, page_size, torch.float32)], 80, CPU)
    for pool in (*cache.keys, *cache.values):
        pool.fill_(float("nan"))  # nothing that was not written may be read
    pages = np.random.default_rng(0).permutation(80).astype(np.int32)[:75].reshape(5, 15)
    if page_size == 1:
        pages = np.random.default_rng(0).permutation(80).astype(np.int32)
        pages = np.stack([np.resize(pages[i * 16 : i * 16 + 16], 19) for i in range(5)])
        totals = [min(total, 16) for total in totals]
        prefixes = [total - count for total, count in zip(totals, counts, strict=True)]
    whole = [torch.randn(2, kv_heads, total, size, generator=generator) for total in totals]

    def where(row: int, position: int) -> int:
        return int(pages[row, position // page_size]) * page_size + position % page_size

    for row, prefix in enumerate(prefixes):
        for position in range(prefix):
            page, offset = divmod(where(row, position), page_size)
            cache.keys[0][page, :, offset] = whole[row][0, :, position]
            cache.values[0][page, :, offset] = whole[row][1, :, position]

    spans = [(row, p) for row in range(5) for p in range(prefixes[row], totals[row])]
    q = torch.randn(len(spans), heads, size, generator=generator)
    k, v = (torch.stack([whole[row][part, :, p] for row, p in spans]) for part in (0, 1))
    starts = np.cumsum([0, *counts])
    batch = ForwardBatch.from_numpy(
        np.zeros(len(spans), np.int64),
        np.array([p for _, p in spans]),
        [np.array([where(row, p) for row, p in spans])],
        starts,
        np.array(totals),
        [pages],
        starts[1:] - 1,
        CPU,
    )
    backend = create_backend("torch")
    out = backend.forward(backend.plan(batch, cache), cache, 0, q, k, v, size**-0.5, window)
    expected = [plain_attention(q[i], whole[row][0], whole[row][1], p, window) for i, (row, p) in enumerate(spans)]
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_pool_takes_no_memory_until_it_is_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    cache = KVCache([KVGroupSpec((0, 1), 8, 64, 16, torch.bfloat16)], 4096, CPU)
    assert sum(pool.nbytes for pool in cache.keys + cache.values) == 256 << 20
    assert not cache.values[1][1000:1004].any()
    assert resident() - before < 64 << 20
    cache.keys[0][7] = 1.5
    assert cache.keys[0][7].eq(1.5).all()

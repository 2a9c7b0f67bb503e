"""Paged attention against a plain float64 softmax: decodes, chunks, prefixes, windows, any layout."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec
from tests.model_worker.kernel_fixtures import THREADS, library, ragged_batch, random_pool, relative, share_prefixes

BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 6e-3, torch.float16: 1e-3}

LENGTHS = st.tuples(st.integers(1, 90), st.integers(0, 150)).map(lambda pair: (pair[0], sum(pair)))  # new, all


def expected_attention(
    batch: ForwardBatch, kv: KVCache, q: torch.Tensor, scale: float, window: int | None
) -> torch.Tensor:
    """Of the keys and values that are in the pool by now."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    spec = kv.pools[0].spec
    size, group = spec.page_size, q.shape[1] // spec.num_kv_heads
    for s, context in enumerate(batch.host_context_len.tolist()):
        positions = torch.arange(context)
        pages, at = batch.block_tables[0][s][positions // size].long(), positions % size
        k = kv.keys[0][pages, :, at].double().repeat_interleave(group, 1)
        v = kv.values[0][pages, :, at].double().repeat_interleave(group, 1)
        start, end = batch.host_query_start[s : s + 2].tolist()
        for t in range(start, end):
            last = context - (end - t) + 1
            first = 0 if window is None else max(0, last - window)
            scores = torch.einsum("hd,khd->hk", q[t].double(), k[first:last]) * scale
            out[t] = torch.einsum("hk,khd->hd", scores.softmax(-1), v[first:last])
    return out


def attend(
    batch: ForwardBatch, kv: KVCache, heads: int, window: int | None, dtype: torch.dtype, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ours, expected) for random q, k, v, cut from one tensor as a model does."""
    generator = torch.Generator().manual_seed(seed)
    spec = kv.pools[0].spec
    total = heads + 2 * spec.num_kv_heads
    qkv = torch.randn(len(batch.token_ids), total, spec.head_dim, generator=generator).to(dtype)
    q, k, v = torch.split(qkv, [heads, spec.num_kv_heads, spec.num_kv_heads], 1)
    backend = NativeAttention(library())
    got = backend.forward(backend.plan(batch, kv), kv, 0, q, k, v, 0.3, window)
    page, at = batch.kv_locations[0] // spec.page_size, batch.kv_locations[0] % spec.page_size
    torch.testing.assert_close(kv.keys[0][page, :, at], k.to(spec.dtype), rtol=0, atol=0)
    torch.testing.assert_close(kv.values[0][page, :, at], v.to(spec.dtype), rtol=0, atol=0)
    return got, expected_attention(batch, kv, q, 0.3, window)


def hold_against_softmax(
    spec: KVGroupSpec, lengths: list[tuple[int, int]], wishes: list[tuple[int, int]], heads: int, window: int | None
) -> None:
    """Sequences of (new tokens, context); `wishes`: see `share_prefixes`."""
    pages = sum(-(-context // spec.page_size) for _, context in lengths) + 3
    batch = ragged_batch(lengths, spec.page_size, pages)
    share_prefixes(batch, spec.page_size, wishes)
    got, expected = attend(batch, random_pool(spec, pages), heads, window, spec.dtype)
    assert relative(got, expected) < BOUNDS[spec.dtype]


@settings(max_examples=50)
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=5),
    page_size=st.sampled_from([1, 3, 16]),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 8),
    head_dim=st.sampled_from([8, 12, 16, 20, 32, 40, 64, 80, 128]),
    window=st.sampled_from([None, 1, 5, 33, 100]),
    dtype=st.sampled_from(list(BOUNDS)),
    threads=st.sampled_from(THREADS),
)
def test_mixed_batches(
    lengths: list[tuple[int, int]],
    page_size: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    window: int | None,
    dtype: torch.dtype,
    threads: int,
) -> None:
    library().set_threads(threads)
    spec = KVGroupSpec((0,), kv_heads, head_dim, page_size, dtype)
    hold_against_softmax(spec, lengths, [], kv_heads * group, window)


@settings(max_examples=60)
@given(
    lengths=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 7]), st.integers(0, 400)).map(lambda pair: (pair[0], sum(pair))),
        min_size=2,
        max_size=12,
    ),
    wishes=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 120)), min_size=12, max_size=12),
    page_size=st.sampled_from([1, 4, 16]),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 2, 3, 16]),
    head_dim=st.sampled_from([8, 12, 64]),
    window=st.sampled_from([None, 5, 100]),
    dtype=st.sampled_from(list(BOUNDS)),
    threads=st.sampled_from(THREADS),
)
def test_sequences_that_share_prefixes(
    lengths: list[tuple[int, int]],
    wishes: list[tuple[int, int]],
    page_size: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    window: int | None,
    dtype: torch.dtype,
    threads: int,
) -> None:
    library().set_threads(threads)
    spec = KVGroupSpec((0,), kv_heads, head_dim, page_size, dtype)
    hold_against_softmax(spec, lengths, wishes, kv_heads * group, window)


@pytest.mark.parametrize("threads", THREADS)
def test_more_sequences_share_a_prefix_than_go_into_one_item(threads: int) -> None:
    library().set_threads(threads)
    kv = random_pool(KVGroupSpec((0,), 2, 32, 16, torch.float32), 2000)
    batch = ragged_batch([(1, 600 + i) for i in range(40)], 16, 2000)
    share_prefixes(batch, 16, [(0, 30)] * 20 + [(19, 35)] * 20)
    got, expected = attend(batch, kv, 16, None, torch.float32)
    assert relative(got, expected) < 2e-6


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("window", [None, 700])
def test_a_long_decode_is_split_over_threads(threads: int, window: int | None) -> None:
    library().set_threads(threads)
    kv = random_pool(KVGroupSpec((0,), 1, 64, 16, torch.float32), 200)
    lengths = [(1, 2900), (1, 17)]
    got, expected = attend(ragged_batch(lengths, 16, 200), kv, 3, window, torch.float32)
    assert relative(got, expected) < 2e-6


@pytest.mark.parametrize("head_dim", [32, 20])
def test_stale_pages_are_never_read(head_dim: int) -> None:
    library().set_threads(2)
    kv = random_pool(KVGroupSpec((0,), 2, head_dim, 16, torch.bfloat16), 40)
    for pool in (*kv.keys, *kv.values):
        pool.fill_(float("nan"))
    got, expected = attend(ragged_batch([(1, 1), (21, 21), (3, 3)], 16, 40), kv, 4, None, torch.bfloat16)
    assert relative(got, expected) < 6e-3


@pytest.mark.parametrize("backend", ["native", "torch"])
@settings(max_examples=60)
@given(
    lengths=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 9]), st.integers(0, 400)).map(lambda pair: (pair[0], sum(pair))),
        min_size=2,
        max_size=8,
    ),
    wishes=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 120)), min_size=8, max_size=8),
    page_size=st.sampled_from([1, 4, 16]),
    head_dim=st.sampled_from([12, 32]),
    window=st.sampled_from([1, 5, 64, 100]),
    stale=st.integers(0, 2),
    threads=st.sampled_from(THREADS),
)
def test_what_lies_behind_a_window_is_never_read(
    backend: str,
    lengths: list[tuple[int, int]],
    wishes: list[tuple[int, int]],
    page_size: int,
    head_dim: int,
    window: int,
    stale: int,
    threads: int,
) -> None:
    """Tables say anything there: nothing, what the sequences once shared, or pages that are others' by now."""
    library().set_threads(threads)
    spec = KVGroupSpec((0,), 2, head_dim, page_size, torch.float32, window)
    pages = sum(-(-context // page_size) for _, context in lengths) + 3
    batch = ragged_batch(lengths, page_size, pages)
    share_prefixes(batch, page_size, wishes)
    table = batch.block_tables[0]
    seen = {
        int(page)
        for row, (_, first, last) in enumerate(_shown(batch, page_size, window))
        for page in table[row, first:last]
    }
    for row, first, _ in _shown(batch, page_size, window):
        table[row, :first] = [0, int(table[-1, -1]), pages - 1][stale]
    kv = random_pool(spec, pages)
    unseen = [page for page in range(pages) if page not in seen]
    for pool in (*kv.keys, *kv.values):
        pool[unseen] = float("nan")
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(len(batch.token_ids), 8, head_dim, generator=generator).split([4, 2, 2], 1)
    attention = NativeAttention(library()) if backend == "native" else TorchAttention()
    got = attention.forward(attention.plan(batch, kv), kv, 0, q, k, v, 0.3, window)
    assert relative(got, expected_attention(batch, kv, q, 0.3, window)) < BOUNDS[torch.float32]


def _shown(batch: ForwardBatch, page_size: int, window: int) -> list[tuple[int, int, int]]:
    """Sequences, and from which of its pages to which each is shown to one of its queries."""
    counts, contexts = np.diff(batch.host_query_start), batch.host_context_len
    firsts = np.maximum(0, contexts - counts + 1 - window) // page_size
    return [
        (row, int(first), -(-int(context) // page_size))
        for row, (first, context) in enumerate(zip(firsts, contexts, strict=True))
    ]


def test_nan_in_one_sequence_does_not_reach_another() -> None:
    library().set_threads(2)
    spec = KVGroupSpec((0,), 2, 32, 16, torch.float32)
    batch = ragged_batch([(1, 30), (9, 50), (1, 40), (5, 5)], 16, 40)
    clean, _ = attend(batch, random_pool(spec, 40), 4, None, torch.float32)
    kv = random_pool(spec, 40)
    for sequence in (1, 2):
        kv.values[0][batch.block_tables[0][sequence][0]] = float("nan")
    got, _ = attend(batch, kv, 4, None, torch.float32)
    assert got[1:11].isnan().all()
    torch.testing.assert_close(got[0], clean[0], rtol=0, atol=0)
    torch.testing.assert_close(got[11:], clean[11:], rtol=0, atol=0)


def test_huge_scores_do_not_overflow() -> None:
    library().set_threads(1)
    kv = random_pool(KVGroupSpec((0,), 1, 32, 16, torch.float32), 20)
    for pool in kv.keys:
        pool.mul_(1e4)
    got, expected = attend(ragged_batch([(1, 70), (40, 90)], 16, 20), kv, 2, None, torch.float32)
    assert relative(got, expected) < 1e-4


def test_pages_that_do_not_exist_are_refused() -> None:
    kv = random_pool(KVGroupSpec((0,), 1, 16, 16, torch.float32), 2)
    batch = ragged_batch([(1, 40)], 16, 9, seed=3)
    with pytest.raises(IndexError, match="page"):
        attend(batch, kv, 2, None, torch.float32)

"""What the tests of the kernels share."""

import numpy as np
import pytest
import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.native import Native, native
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec

THREADS = (1, 2, 3)


def library() -> Native:
    """The kernels; skips the test where there is no compiler."""
    found = native()
    if found is None:
        pytest.skip("no C++ compiler here")
    return found


def ragged_batch(lengths: list[tuple[int, int]], page_size: int, pages: int, seed: int = 0) -> ForwardBatch:
    """(new tokens, context) per sequence, on pages in random order; logits of each sequence's last token."""
    order = np.random.default_rng(seed).permutation(pages)
    width = max(-(-context // page_size) for _, context in lengths)
    tables = np.zeros((len(lengths), width), np.int32)
    positions, locations, starts, used = [], [], [0], 0
    for row, (count, context) in zip(tables, lengths, strict=True):
        needed = -(-context // page_size)
        row[:needed] = order[used : used + needed]
        used += needed
        span = np.arange(context - count, context)
        positions.append(span)
        locations.append(row[span // page_size].astype(np.int64) * page_size + span % page_size)
        starts.append(starts[-1] + count)
    if used > pages:
        raise ValueError(f"{used} pages are needed, not {pages}")
    return ForwardBatch.from_numpy(
        np.zeros(starts[-1], np.int64),
        np.concatenate(positions),
        [np.concatenate(locations)],
        np.array(starts),
        np.array([context for _, context in lengths]),
        [tables],
        np.array(starts[1:]) - 1,
        torch.device("cpu"),
    )


def share_prefixes(batch: ForwardBatch, page_size: int, wishes: list[tuple[int, int]]) -> None:
    """Sequence i takes its first pages, as many as `wishes[i][1]`, from sequence `wishes[i][0]` modulo i.

    Only pages that no token of this step is written to: what a radix cache would share.
    """
    counts = np.diff(batch.host_query_start)
    full = (batch.host_context_len - counts) // page_size
    for s, (parent, pages) in enumerate(wishes[: len(full)]):
        if s:
            shared = min(pages, full[s], full[parent % s])
            batch.block_tables[0][s, :shared] = batch.block_tables[0][parent % s, :shared]


def random_pool(spec: KVGroupSpec, pages: int, seed: int = 0) -> KVCache:
    generator = torch.Generator().manual_seed(seed)
    kv = KVCache([spec], pages, torch.device("cpu"))
    for pool in (*kv.keys, *kv.values):
        pool.copy_(torch.randn(pool.shape, generator=generator))
    return kv


def relative(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference by norm of what is expected."""
    return float((got.double() - expected.double()).norm() / expected.double().norm())

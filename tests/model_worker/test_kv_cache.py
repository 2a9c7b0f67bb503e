"""The pool's arithmetic, and attention over it against a plain loop."""

import math
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radixmesh.services.model_worker import start
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec, pages_within
from radixmesh.services.model_worker.models.loading import open_model
from radixmesh.services.model_worker.parallel.mesh import Collectives
from radixmesh.services.model_worker.start import load
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.messages import Claimed, KvGroup, KvKind
from tests.checkpoints import change_config, make_checkpoint
from tests.model_worker import loaded
from tests.model_worker.loaded import load_model

CPU = torch.device("cpu")


def test_page_bytes_and_budget() -> None:
    spec = KVGroupSpec(layers=tuple(range(28)), num_kv_heads=8, head_dim=128, page_size=16, dtype=torch.bfloat16)
    assert spec.page_bytes == 28 * 2 * 8 * 128 * 16 * 2
    assert pages_within([spec], [1000], 10 * spec.page_bytes + 5) == [10]
    assert pages_within([spec], [7], 10 * spec.page_bytes + 5) == [7]
    assert pages_within([spec], [1000], -1) == [0]
    cache = KVCache([KVGroupSpec((0, 1), 3, 8, 4, torch.float32)], 5, CPU)
    assert sum(pool.nbytes for pool in cache.keys + cache.values) == 5 * cache.num_bytes // 5


def _spec(window: int | None, layers: int) -> KVGroupSpec:
    return KVGroupSpec(tuple(range(layers)), 1, 4, 4, torch.float32, window)


def test_memory_is_shared_out_in_equal_numbers_of_pages_as_far_as_they_are_of_use() -> None:
    specs, most = [_spec(None, 2), _spec(9, 6)], [1000, 50]
    both, rest = sum(spec.page_bytes for spec in specs), specs[0].page_bytes
    assert pages_within(specs, most, 20 * both) == [20, 20]
    assert pages_within(specs, most, 20 * both + rest) == [20, 20]
    assert pages_within(specs, most, 50 * both + 100 * rest) == [150, 50]
    assert pages_within(specs, most, 10**12) == most


def test_the_length_that_a_pool_allows() -> None:
    """A window of nine shows two pages of four; with less than two more it cannot move on."""
    assert [_spec(9, 1).longest(count) for count in (1, 3, 4)] == [4, 12, None]
    assert [_spec(1, 1).longest(count) for count in (2, 3)] == [8, None]
    assert _spec(None, 1).longest(100) == 400


@pytest.mark.parametrize(
    ("family", "fields", "groups"),
    [
        ("llama", {}, [(None, (0, 1, 2))]),
        ("mistral", {"sliding_window": 9}, [(9, (0, 1, 2))]),
        ("mistral", {"sliding_window": 100}, [(None, (0, 1, 2))]),  # no sequence outgrows it
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
            [(None, (0,)), (9, (1, 2))],
        ),
    ],
    ids=str,
)
def test_layers_are_grouped_by_what_they_see(
    tmp_path: Path, family: str, fields: dict[str, Any], groups: list[Any]
) -> None:
    make_checkpoint(tmp_path, family, max_position_embeddings=100, **fields)
    model = load_model(open_model(tmp_path), loaded.CPU)
    assert [(spec.window, spec.layers) for spec in model.kv_groups(4)] == groups
    kv = KVCache(model.kv_groups(4), 3, CPU)
    assert [kv.pools[group].spec.window for group in kv.group_of] == [
        next(window for window, layers in groups if layer in layers) for layer in range(3)
    ]


def _sizes(path: Path, **settings: Any) -> Claimed:
    loaded = load(ModelWorkerSettings(model=str(path), page_size=4, threads=1, **settings), lambda *_: None)
    loaded.close()
    return loaded.sizes


def test_a_scheduler_is_told_of_each_pool(tmp_path: Path) -> None:
    """A window's is as large as all slots have use for, twice; the length is bounded by the layers that see all."""
    window: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
    make_checkpoint(tmp_path, "qwen2", max_position_embeddings=10_000, **window)
    full = KvGroup(page_size=4, num_pages=2000)
    told = _sizes(tmp_path, num_pages=2000, max_slots=1)
    useful = 2 * -(-(9 + 2048) // 4)
    assert told.groups == [full, KvGroup(kind=KvKind.WINDOW, page_size=4, num_pages=useful, window=9)]
    assert told.max_model_len == 8000
    told = _sizes(tmp_path, kv_memory=1 / 1024, max_slots=8)
    pages = (1 << 20) // (3 * 2 * 2 * 4 * 16 * 4)  # layers, K and V, heads, tokens, elements, bytes
    assert [group.num_pages for group in told.groups] == [pages, pages]
    assert told.max_model_len == pages * 4


def test_ranks_agree_on_the_least_that_any_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Collectives()
    monkeypatch.setattr(
        Collectives, "all_gather", lambda _self, mine: torch.cat([mine, torch.tensor([[9], [3]])], dim=-1)
    )
    assert start._agree([7, 5], group) == [7, 3]


@pytest.mark.parametrize("positions", [10_000, 10**30])
def test_where_all_layers_have_windows_memory_does_not_bound_the_length(tmp_path: Path, positions: int) -> None:
    make_checkpoint(tmp_path, "mistral", sliding_window=9)
    change_config(tmp_path, max_position_embeddings=positions)
    assert _sizes(tmp_path, num_pages=4).max_model_len == min(positions, 1 << 22)
    assert _sizes(tmp_path, num_pages=3).max_model_len == 12
    with pytest.raises(ConfigError, match=r"--max-model-len 13 is more than .* the KV cache \(12 tokens\) allows"):
        _sizes(tmp_path, num_pages=3, max_model_len=13)


def test_impossible_pools_are_refused() -> None:
    with pytest.raises(ValueError, match="page_size"):
        KVGroupSpec((0,), 1, 2, 0, torch.float32)
    with pytest.raises(ValueError, match="at least one page"):
        KVCache([KVGroupSpec((0,), 1, 2, 1, torch.float32)], 0, CPU)


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
    backend = TorchAttention()
    out = backend.forward(backend.plan(batch, cache), cache, 0, q, k, v, size**-0.5, window)
    expected = [plain_attention(q[i], whole[row][0], whole[row][1], p, window) for i, (row, p) in enumerate(spans)]
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_pool_takes_no_memory_until_it_is_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    cache = KVCache([KVGroupSpec((0, 1), 8, 64, 16, torch.bfloat16)], 4096, CPU, CpuDevice().zeros)
    assert sum(pool.nbytes for pool in cache.keys + cache.values) == 256 << 20
    assert not cache.values[1][1000:1004].any()
    assert resident() - before < 64 << 20
    cache.keys[0][7] = 1.5
    assert cache.keys[0][7].eq(1.5).all()

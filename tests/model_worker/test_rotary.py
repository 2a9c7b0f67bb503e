"""Tables of angles are as long as what is served, and no number in them depends on when it was made."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from radixmesh.services.model_worker.checkpoint.rope import RopeConfig
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu.native import FORCE_ENV
from radixmesh.services.model_worker.layers import rotary
from radixmesh.services.model_worker.layers.rotary import RotaryEmbedding
from radixmesh.services.model_worker.models import open_model
from radixmesh.services.model_worker.start import load
from radixmesh.shared.messages import SamplingParams
from tests.checkpoints import change_config, make_checkpoint
from tests.model_worker.loaded import load_model
from tests.model_worker.paged_driver import PagedDriver
from tests.model_worker.plans import Job, PlanDriver

CPU = torch.device("cpu")
LLAMA3 = RopeConfig(5e5, "llama3", 8192, 8.0, 1.0, 4.0)
YARN = RopeConfig(1e4, "yarn", 4096, 16.0)
ENDLESS = 40_000_000


def tables(config: RopeConfig, max_length: int) -> RotaryEmbedding:
    return RotaryEmbedding(config, 64, max_length, torch.float32, CPU)


@pytest.mark.parametrize("config", [RopeConfig(1e4, "default", 4096), LLAMA3, YARN], ids=lambda config: config.type)
def test_tables_grow_without_a_change(config: RopeConfig) -> None:
    whole, grown = tables(config, 200_000), tables(config, ENDLESS)
    whole.reserve(200_000)
    assert len(whole.cos) == len(whole.sin) == 200_000
    rows = []
    for length in (1, 5, 32_768, 32_769, 70_000, 69_000, 200_000):
        grown.reserve(length)
        rows.append(len(grown.cos))
        assert length <= rows[-1] <= max(32_768, 2 * length)
    assert rows == sorted(rows)
    assert torch.equal(grown.cos[:200_000], whole.cos)
    assert torch.equal(grown.sin[:200_000], whole.sin)
    positions = torch.tensor([0, 1, 32_767, 32_768, 199_999])
    angles = np.outer(positions.numpy(), whole.frequencies.numpy()) % (2 * np.pi)
    assert np.allclose(whole.cos[positions].numpy() / whole.scale, np.cos(angles), atol=0.02)  # float32, as in training


@pytest.mark.parametrize("length", [1, 4, 8191, 8192, 8193])
def test_tables_end_where_the_model_does(length: int) -> None:
    short, long = tables(YARN, length), tables(YARN, ENDLESS)
    for grown in (short, long):
        grown.reserve(1)
        grown.reserve(10 * length)
    assert len(short.cos) == len(short.sin) == length
    assert short.cos.is_contiguous()
    assert torch.equal(short.cos, long.cos[:length])


@pytest.mark.parametrize(
    "promise",
    [
        {"max_position_embeddings": ENDLESS},
        {"max_position_embeddings": 10**30},
        {"rope_parameters": {"rope_type": "linear", "factor": 1e6, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 1e5, "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 1e5, "rope_theta": 1e4}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kernels", ["", "torch"])
def test_a_promise_of_millions_of_positions_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: str, promise: dict[str, Any]
) -> None:
    monkeypatch.setenv(FORCE_ENV, kernels)
    make_checkpoint(tmp_path, "llama", head_dim=64)
    change_config(tmp_path, **promise)
    before = psutil.Process().memory_info().rss
    loaded = load(ModelWorkerSettings(model=str(tmp_path), kv_memory=4.0, threads=1), lambda *_: None)
    assert loaded.sizes.max_model_len == loaded.sizes.groups[0].num_pages * loaded.sizes.groups[0].page_size > 1_000_000
    job = Job([5, 6, 7], SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True))
    PlanDriver(loaded.engine).run([job])
    assert len(job.tokens) == 4
    assert psutil.Process().memory_info().rss - before < 300 << 20


@pytest.mark.parametrize("count", [40, 300])
def test_tokens_do_not_depend_on_how_the_tables_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Small tables that grow in the prompt's chunks and in decodes, against transformers."""
    monkeypatch.setattr(rotary, "_BLOCK", 16)
    monkeypatch.setattr(rotary, "_AT_FIRST", 32)
    theirs = make_checkpoint(tmp_path, "qwen2", num_hidden_layers=1, max_position_embeddings=1 << 20)
    prompt = [1 + (7 * i * i + 3 * i) % 509 for i in range(count)]
    model = load_model(open_model(tmp_path), dtype=torch.float32)
    ours = PagedDriver(model, 64).mixed([prompt], 40, chunk=50)
    assert isinstance(model.model.rotary.cos, torch.Tensor)
    assert len(model.model.rotary.cos) < 1000
    expected = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40, eos_token_id=None)
    assert ours == [expected[0, len(prompt) :].tolist()]

"""Matrices packed from where they lie in their file: the same bits as from parameters."""

from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.packed import PackedWeight
from radixmesh.services.model_worker.devices.executor import TorchExecutor, make_executor
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models import CausalLM, load_model, open_model
from radixmesh.services.model_worker.platform import get_platform
from tests.checkpoints import FAMILIES, make_checkpoint
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.paged_driver import PagedDriver, Sequence
from tests.model_worker.test_parity import PROMPTS

CPU = get_platform("cpu")


def logits(model: CausalLM, deferred: Deferred | None, quantization: Any = "") -> torch.Tensor:
    driver = PagedDriver(model, 16)
    fused = FusedDecoder(model, driver.kv, quantization, deferred=deferred)
    batch = driver.batch([(Sequence(PROMPTS[2]), len(PROMPTS[2]))])
    return fused(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["", "w8a16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_the_same_bits(family: str, quantization: str, dtype: torch.dtype, tmp_path: Path) -> None:
    library()
    make_checkpoint(tmp_path, family)
    deferred = Deferred()
    expected = logits(load_model(open_model(tmp_path), CPU, dtype=dtype), None, quantization)
    model = load_model(open_model(tmp_path), CPU, dtype=dtype, deferred=deferred)
    assert torch.equal(logits(model, deferred, quantization), expected)


@pytest.mark.parametrize("overrides", [{"head_dim": 20, "hidden_size": 76}, {"tie_word_embeddings": True}])
def test_heads_that_fill_no_panel_and_a_tied_embedding(overrides: dict[str, Any], tmp_path: Path) -> None:
    library()
    make_checkpoint(tmp_path, "qwen3", **overrides)
    deferred = Deferred()
    expected = logits(load_model(open_model(tmp_path), CPU), None)
    assert torch.equal(logits(load_model(open_model(tmp_path), CPU, deferred=deferred), deferred), expected)


def test_nothing_is_missing_where_torch_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path, "llama")
    monkeypatch.setattr("radixmesh.services.model_worker.devices.executor.supported", lambda _model: "it is not to be")
    deferred = Deferred()
    loaded, late = load_model(open_model(tmp_path), CPU), load_model(open_model(tmp_path), CPU, deferred=deferred)
    kv = KVCache(late.kv_groups(16), 4, CPU.device)
    assert isinstance(make_executor(late, kv, deferred=deferred), TorchExecutor)
    for mine, other in zip(late.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_matrix_may_come_in_blocks() -> None:
    native = library()
    matrix = torch.randn(5 * native.panel_width + 3, 70)
    whole = PackedWeight(native, [matrix]).rows(0, len(matrix))
    for cuts in ([2 * native.panel_width], [native.panel_width, 3 * native.panel_width], [7]):
        blocks = list(matrix.tensor_split(cuts))
        assert torch.equal(PackedWeight(native, [blocks]).rows(0, len(matrix)), whole)
    with pytest.raises(ValueError, match="one shape"):
        PackedWeight(native, [[matrix], [matrix[:8], matrix[:8]]])

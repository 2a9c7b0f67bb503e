"""oneDNN's linear layers in place of ours."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from radixmesh.services.model_worker import start
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu import onednn
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.executor import TorchExecutor
from radixmesh.services.model_worker.models import load_model, open_model
from radixmesh.services.model_worker.platform import get_platform
from radixmesh.shared.messages import SamplingParams
from tests.checkpoints import make_checkpoint
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.paged_driver import PagedDriver
from tests.model_worker.parity_cases import COUNT, PROMPTS, reference
from tests.model_worker.plans import Job, PlanDriver


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_tokens_equal_transformers(tied: bool, tmp_path: Path) -> None:
    theirs = make_checkpoint(tmp_path, "qwen2", tie_word_embeddings=tied)
    expected = [reference(theirs, prompt, COUNT) for prompt in PROMPTS]
    method = onednn.OneDnnLinear()
    model = load_model(open_model(tmp_path), get_platform("cpu"), dtype=torch.float32, linear_method=method)
    assert sum(p.numel() for p in model.parameters() if p.dim() == 2) == 512 * 64  # the embedding
    assert PagedDriver(model, 16).mixed(PROMPTS, COUNT, chunk=6) == expected


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("flags", [{}, {"quantization": "w8a16"}], ids=["plain", "quantized"])
def test_the_worker_takes_it_where_it_is_faster(
    flags: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not in place of weights of fewer bits. Through the engine, with attention in the kernels."""
    library()
    theirs = make_checkpoint(tmp_path, "llama")
    monkeypatch.setattr(start, "onednn_is_faster", lambda _native, dtype: dtype is torch.float32)
    settings = ModelWorkerSettings(
        model=str(tmp_path), dtype="float32", num_pages=64, page_size=16, max_slots=4, threads=1, **flags
    )
    loaded = start.load(settings, lambda _fraction, _what: None)
    executor = type(loaded.engine.runner._executor)
    if flags:
        assert executor is FusedDecoder
    else:
        assert executor is TorchExecutor
        params = SamplingParams(temperature=0.0, max_tokens=COUNT, ignore_eos=True)
        jobs = [Job(prompt, params) for prompt in PROMPTS]
        PlanDriver(loaded.engine, chunk=6).run(jobs)
        assert [job.tokens for job in jobs] == [reference(theirs, prompt, COUNT) for prompt in PROMPTS]
    loaded.close()


def test_float32_is_ours() -> None:
    assert not onednn.onednn_is_faster(library(), torch.float32)


@pytest.mark.parametrize(("delay", "faster"), [(0.0, False), (0.02, True)])
def test_the_faster_one_is_chosen(delay: float, faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes `delay` longer here, where oneDNN is made to look as if it had 16-bit products."""

    class Slow(onednn.PackedWeight):
        def multiply(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(delay)
            return x

    fake = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", fake)
    monkeypatch.setattr(onednn, "PackedWeight", Slow)
    monkeypatch.setattr(onednn.F, "linear", lambda x, weight: time.sleep(0.002))
    assert onednn.onednn_is_faster(library(), torch.bfloat16) is faster

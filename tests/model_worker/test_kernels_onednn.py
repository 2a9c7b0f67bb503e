"""oneDNN's linear layers in place of ours."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import make_checkpoint
from kernel_fixtures import library
from paged_driver import PagedDriver
from parity_cases import COUNT, PROMPTS, reference

from radixmesh.services.model_worker.kernels import onednn
from radixmesh.services.model_worker.models import load_model
from radixmesh.services.model_worker.platform import get_platform


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_tokens_equal_transformers(tied: bool, tmp_path: Path) -> None:
    theirs = make_checkpoint(tmp_path, "qwen2", tie_word_embeddings=tied)
    expected = [reference(theirs, prompt, COUNT) for prompt in PROMPTS]
    model = load_model(tmp_path, get_platform("cpu"), dtype=torch.float32, linear_method=onednn.OneDnnLinear())
    assert sum(p.numel() for p in model.parameters() if p.dim() == 2) == 512 * 64  # the embedding
    assert PagedDriver(model, 16).mixed(PROMPTS, COUNT, chunk=6) == expected


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

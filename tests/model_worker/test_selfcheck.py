"""The kernels are trusted only as long as their numbers are right."""

from pathlib import Path

import pytest

from radixmesh.services.model_worker import start
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.packed import PackedWeight
from radixmesh.services.model_worker.devices.cpu.selfcheck import selfcheck
from radixmesh.services.model_worker.devices.executor import TorchExecutor
from tests.checkpoints import make_checkpoint
from tests.model_worker.kernel_fixtures import library


def test_they_are_right_here() -> None:
    assert selfcheck(library()) == ""


def test_wrong_numbers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = PackedWeight.multiply
    monkeypatch.setattr(PackedWeight, "multiply", lambda self, x: multiply(self, x) * 1.05)
    assert "a linear layer in torch.bfloat16 is off by 0.05" in selfcheck(library())


@pytest.mark.parametrize("wrong", ["", "attention is off"])
def test_torch_serves_where_they_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    library()
    make_checkpoint(tmp_path, "llama")
    monkeypatch.setattr(start, "selfcheck", lambda _native: wrong)
    settings = ModelWorkerSettings(model=str(tmp_path), num_pages=8, max_slots=2, threads=1)
    loaded = start.load(settings, lambda _fraction, _what: None)
    expected = TorchExecutor if wrong else FusedDecoder
    assert type(loaded.engine.runner._executor) is expected
    loaded.close()

"""Two ranks on two accelerators: plans by the host's group, tokens by the device's."""

from pathlib import Path

import pytest
import torch

from radixmesh.services.model_worker.platform import get_platform
from tests.checkpoints import make_checkpoint
from tests.model_worker.group_rank import run_group

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]


def test_every_rank_does_what_rank_0_does(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model", "llama")
    first, second = run_group("cuda", get_platform("cuda").distributed_backend, tmp_path, tmp_path / "model")
    assert first == second
    assert first["order"] == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert [len(tokens) for tokens in first["sequences"][:2]] == [12, 12]
    assert first["sequences"][2] == "the model's logits are not finite"

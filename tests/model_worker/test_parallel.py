"""Two ranks over gloo give the tokens of one, for every family and every way that heads can be shared."""

from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.models import open_model
from radixmesh.services.model_worker.parallel.mesh import Mesh, MeshSizes, ParallelGroup
from tests.checkpoints import make_checkpoint
from tests.model_worker.loaded import CPU, load_model
from tests.model_worker.paged_driver import PagedDriver
from tests.model_worker.parallel_rank import COUNT, PROMPTS
from tests.model_worker.ranks import run_ranks

pytestmark = pytest.mark.processes

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "mistral": ("mistral", {"sliding_window": 7, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"vocab_size": 511}),
    "qwen2-replicated-kv": ("qwen2", {"num_key_value_heads": 1}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "vocab_size": 511}),
}


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    checkpoints = [tmp_path / name for name in CASES]
    for path, (family, overrides) in zip(checkpoints, CASES.values(), strict=True):
        make_checkpoint(path, family, **overrides)
    first, second = run_ranks("tests.model_worker.parallel_rank", 2, tmp_path, *checkpoints)
    for path, (_, overrides) in zip(checkpoints, CASES.values(), strict=True):
        model = load_model(open_model(path), CPU, dtype=torch.float32)
        expected = PagedDriver(model, 4).mixed(PROMPTS, COUNT, chunk=6)
        assert first[path.name]["tokens"] == expected, path.name
        # Every rank holds the same bits, so every rank samples the same token without being told.
        assert first[path.name] == second[path.name]
        assert first[path.name]["width"] == overrides.get("vocab_size", 512)
        assert first[path.name]["kv_heads"] == max(1, overrides.get("num_key_value_heads", 2) // 2)
    assert first["broadcast"] == second["broadcast"] == 5


@pytest.mark.parametrize(
    ("overrides", "size", "field"),
    [
        ({"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 16}, 2, "num_attention_heads"),
        ({"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16}, 3, "num_key_value_heads"),
        ({"intermediate_size": 97}, 2, "intermediate_size"),
    ],
)
def test_sizes_that_cannot_be_shared_are_refused(
    overrides: dict[str, Any], size: int, field: str, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path, "qwen3", **overrides)
    with pytest.raises(ModelLoadError, match=rf"config\.json.*{field}"):
        load_model(open_model(tmp_path), CPU, mesh=Mesh(0, MeshSizes(tp=size)))


def test_a_group_of_one_communicates_with_nobody() -> None:
    group = Mesh.connect(0, MeshSizes(), "gloo", "tcp://nowhere.invalid:1").tp
    tensor = torch.ones(2)
    assert group.all_reduce(tensor) is group.all_gather(tensor) is group.broadcast(tensor) is tensor
    with pytest.raises(ValueError, match="outside a group"):
        ParallelGroup(2, 2)

"""Loading: what is complete loads, shards and slices included; what is not says which file and tensor is at fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint
from paged_driver import PagedDriver
from safetensors.torch import load_file, save_file

from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.layers.parallel import ParallelGroup
from radixmesh.services.model_worker.models import CausalLM, LoadFormat, load_model
from radixmesh.services.model_worker.platform import get_platform

PROMPT = list(range(5, 25))
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def load(path: Path, load_format: LoadFormat = "safetensors", **options: object) -> CausalLM:
    return load_model(path, get_platform("cpu"), dtype=torch.float32, load_format=load_format, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole")
    make_checkpoint(path, "llama")
    return path


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint, tmp_path / "copy")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def test_shards_load_like_one_file(checkpoint: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama", shard_size="150KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    expected = PagedDriver(load(checkpoint), 4).alone(PROMPT, 8)
    assert PagedDriver(load(tmp_path), 4).alone(PROMPT, 8) == expected


def test_progress_ends_at_the_total(checkpoint: Path) -> None:
    calls: list[tuple[int, int]] = []
    model = load(checkpoint, progress=lambda done, total: calls.append((done, total)))
    total = sum(parameter.nbytes for parameter in model.parameters())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_weights_are_cast_to_the_serving_dtype(checkpoint: Path) -> None:
    model = load_model(checkpoint, get_platform("cpu"), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    stored = load_file(checkpoint / "model.safetensors")["model.norm.weight"]
    assert torch.equal(model.model.norm.weight, stored.bfloat16())


@pytest.mark.parametrize(
    ("change", "tensor", "problem"),
    [
        (lambda t: t.pop(Q_PROJ), Q_PROJ, "missing"),
        (lambda t: t.update({Q_PROJ: torch.zeros(64, 32)}), Q_PROJ, r"expected shape \[64, 64\], found \[64, 32\]"),
        (lambda t: t.update({Q_PROJ: torch.zeros(64, 64, dtype=torch.int32)}), Q_PROJ, "torch.int32"),
        (lambda t: t.update({"model.layers.9.x": torch.zeros(1)}), "model.layers.9.x", "no use"),
        (lambda t: t.update({"lm_head.bias": torch.zeros(1)}), "lm_head.bias", "no use"),
    ],
)
def test_a_wrong_tensor_is_named(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], object], tensor: str, problem: str
) -> None:
    rewrite(copy, change)
    with pytest.raises(ModelLoadError, match=problem) as caught:
        load(copy)
    assert caught.value.subject == tensor
    assert caught.value.file == str(copy / "model.safetensors")


def test_known_leftovers_are_ignored(copy: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(copy, lambda tensors: tensors.update({name: torch.zeros(8)}))
    load(copy)


def test_a_stored_copy_of_a_tied_head_is_ignored(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "qwen3", tie_word_embeddings=True)
    rewrite(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = load(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("keep", [0, 5, 1000, 100_000])
def test_a_truncated_file_is_refused(copy: Path, keep: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match="not a whole safetensors file") as caught:
        load(copy)
    assert caught.value.file == str(file)


def test_no_weights_at_all(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin.*convert"):
        load(copy)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path, "llama", shard_size="150KB")
    return tmp_path


def edit_index(path: Path, **entries: object) -> None:
    file = path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"].update(entries)
    file.write_text(json.dumps(index))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelLoadError, match=f"{shard.name}: is missing"):
        load(sharded)


def test_an_index_that_lies_is_found_out(sharded: Path) -> None:
    shards = sorted(path.name for path in sharded.glob("*.safetensors"))
    where = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"][Q_PROJ]
    other = next(name for name in shards if name != where)
    edit_index(sharded, **{Q_PROJ: other})
    with pytest.raises(ModelLoadError, match="is not in this file") as caught:
        load(sharded)
    assert (caught.value.file, caught.value.subject) == (str(sharded / other), Q_PROJ)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", 7])
def test_an_index_must_not_lead_out_of_its_directory(sharded: Path, name: object) -> None:
    edit_index(sharded, **{Q_PROJ: name})
    with pytest.raises(ModelLoadError, match="weight_map"):
        load(sharded)


def test_dummy_weights_need_no_files_and_repeat(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoint / "config.json", tmp_path)
    first, second = load(tmp_path, "dummy"), load(tmp_path, "dummy")
    for ours, again in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, again)
    assert first.model.norm.weight.eq(1).all()
    assert first.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(first.lm_head.weight, first.model.embed_tokens.weight)


def test_dummy_weights_of_ranks_are_slices_of_one_model(checkpoint: Path) -> None:
    whole = load(checkpoint, "dummy")
    halves = [load(checkpoint, "dummy", group=ParallelGroup(rank, 2)) for rank in range(2)]
    rows = [half.lm_head.weight.data for half in halves]
    assert torch.equal(torch.cat(rows), whole.lm_head.weight)
    down = [half.get_parameter("model.layers.0.mlp.down_proj.weight").data for half in halves]
    assert torch.equal(torch.cat(down, 1), whole.get_parameter("model.layers.0.mlp.down_proj.weight"))

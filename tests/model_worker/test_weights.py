"""Loading: what is complete loads, shards and slices included; what is not says which file and tensor is at fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.models import CausalLM, LoadFormat, open_model
from radixmesh.services.model_worker.parallel.mesh import Mesh, MeshSizes
from tests.checkpoints import change_config, make_checkpoint
from tests.model_worker.loaded import CPU, load_model
from tests.model_worker.paged_driver import PagedDriver

PROMPT = list(range(5, 25))
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def load(path: Path, load_format: LoadFormat = "safetensors", **options: object) -> CausalLM:
    return load_model(open_model(path, load_format), CPU, dtype=torch.float32, **options)  # type: ignore[arg-type]


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
    model = load_model(open_model(checkpoint), CPU, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    stored = load_file(checkpoint / "model.safetensors")["model.norm.weight"]
    assert torch.equal(model.model.norm.weight, stored.bfloat16())


@pytest.mark.parametrize(
    ("change", "tensor", "problem"),
    [
        (lambda t: t.pop(Q_PROJ), Q_PROJ, "missing"),
        (lambda t: t.update({Q_PROJ: torch.zeros(64, 32)}), Q_PROJ, r"\[64, 64\] by config.json, found \[64, 32\]"),
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


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def tied(path: Path, change: Callable[[dict[str, torch.Tensor]], object], family: str = "qwen3") -> CausalLM:
    """A checkpoint whose config says that head and embedding are one, and whose file was changed."""
    make_checkpoint(path, family, tie_word_embeddings=True)
    rewrite(path, change)
    return load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({HEAD: t[EMBEDDING].clone()}),
        lambda t: t.update({HEAD: t.pop(EMBEDDING)}),  # under the other of its names
        lambda t: t.update({EMBEDDING: t[EMBEDDING].bfloat16().float(), HEAD: t[EMBEDDING].bfloat16()}),
    ],
)
def test_a_tied_head_may_be_stored_as_well_or_instead(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    model = tied(tmp_path, change)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tensors = load_file(tmp_path / "model.safetensors")
    assert torch.equal(model.lm_head.weight, tensors[HEAD].float())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("row", [0, 511])
def test_a_head_of_its_own_is_used_whatever_the_config_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, family: str, row: int
) -> None:
    """As transformers does. One row of it is enough to differ."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[HEAD] = tensors[EMBEDDING].clone()
        tensors[HEAD][row] += 0.5

    model = tied(tmp_path, change, family)
    assert "tie_word_embeddings is true, but" in caplog.text
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert not torch.equal(theirs.lm_head.weight, theirs.model.embed_tokens.weight)
    expected = theirs.generate(torch.tensor([PROMPT]), do_sample=False, max_new_tokens=8, eos_token_id=None)
    assert PagedDriver(model, 4).alone(PROMPT, 8) == expected[0, len(PROMPT) :].tolist()


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"lm_head.weight: expected shape \[512, 64\] by config.json, found"):
        tied(tmp_path, lambda t: t.update({HEAD: torch.zeros(500, 64)}))


def test_a_model_without_head_is_not_taken_for_a_tied_one(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    rewrite(tmp_path, lambda t: t.pop(HEAD))
    with pytest.raises(ModelLoadError, match=r"model\.safetensors: lm_head\.weight: by config\.json the model needs"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "changes", "subject"),
    [
        ("llama", {"num_hidden_layers": 2}, "model.layers.2.input_layernorm.weight"),
        ("llama", {"num_hidden_layers": 4}, "num_hidden_layers"),
        ("llama", {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
        ("llama", {"vocab_size": 500}, EMBEDDING),
        ("llama", {"vocab_size": 513}, EMBEDDING),
        ("llama", {"hidden_size": 128}, EMBEDDING),
        ("llama", {"intermediate_size": 95}, "model.layers.0.mlp.gate_proj.weight"),
        ("llama", {"intermediate_size": 2**31 - 2}, ""),
        ("llama", {"num_key_value_heads": 4}, "model.layers.0.self_attn.k_proj.weight"),
        ("llama", {"head_dim": 32}, "model.layers.0.self_attn.q_proj.weight"),
        ("llama", {"attention_bias": True}, "model.layers.0.self_attn.k_proj.bias"),
        ("llama", {"mlp_bias": True}, "model.layers.0.mlp.down_proj.bias"),
        ("llama", {"architectures": ["Qwen3ForCausalLM"], "head_dim": 16}, "model.layers.0.self_attn.k_norm.weight"),
        ("qwen2", {"architectures": ["LlamaForCausalLM"]}, "model.layers.0.self_attn.k_proj.bias"),
        ("qwen3", {"architectures": ["Qwen2ForCausalLM"]}, "model.layers.0.self_attn.k_proj.bias"),
        ("qwen3", {"architectures": ["LlamaForCausalLM"]}, "model.layers.0.self_attn.k_norm.weight"),
        ("qwen3", {"head_dim": 16, "num_attention_heads": 8, "num_key_value_heads": 4}, "model.layers.0.self_attn"),
        ("qwen2", {"tie_word_embeddings": False, "vocab_size": 511}, EMBEDDING),
    ],
)
def test_a_config_that_the_weights_contradict_is_refused_by_name(
    tmp_path: Path, family: str, changes: dict[str, object], subject: str
) -> None:
    make_checkpoint(tmp_path, family)
    change_config(tmp_path, **changes)
    with pytest.raises(ModelLoadError, match=r"config\.json") as caught:
        load(tmp_path)
    assert caught.value.subject.startswith(subject)


@pytest.mark.parametrize("said", [None, "auto", "int4"])
@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_tell_their_dtype(copy: Path, said: str | None, stored: torch.dtype) -> None:
    rewrite(copy, lambda tensors: tensors.update({name: tensor.to(stored) for name, tensor in tensors.items()}))
    change_config(copy, dtype=said)
    assert open_model(copy).dtype is stored


def test_a_dtype_that_cannot_be_served_is_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors.update({name: tensor.double() for name, tensor in tensors.items()}))
    change_config(copy, dtype=None)
    with pytest.raises(ModelLoadError, match=r"embed_tokens\.weight: is stored as F64; say by --dtype"):
        load(copy)
    change_config(copy, dtype="float32")
    load(copy)


def test_numbers_that_float16_does_not_hold_are_named(copy: Path) -> None:
    rewrite(copy, lambda tensors: tensors[Q_PROJ][3].fill_(70_000.0))
    load(copy)
    with pytest.raises(ModelLoadError, match=rf"{Q_PROJ}: holds numbers beyond float16; serve it in float32"):
        load_model(open_model(copy), CPU, dtype=torch.float16)


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


def index_of_absent_shards(path: Path) -> None:
    edit_index(path, **{EMBEDDING: "model-00009-of-00009.safetensors"})


def index_that_is_cut_short(path: Path) -> None:
    (path / "model.safetensors.index.json").write_text('{"weight_map": {')


def index_of_other_tensors(path: Path) -> None:
    edit_index(path, **{"model.layers.7.x": "model.safetensors.old"})


@pytest.mark.parametrize("spoil", [index_of_absent_shards, index_that_is_cut_short, index_of_other_tensors])
def test_a_whole_file_counts_whatever_an_index_beside_it_says(
    checkpoint: Path, sharded: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(checkpoint / "model.safetensors", sharded)
    spoil(sharded)
    for shard in sharded.glob("model-*.safetensors"):
        shard.unlink()
    expected = PagedDriver(load(checkpoint), 4).alone(PROMPT, 8)
    assert PagedDriver(load(sharded), 4).alone(PROMPT, 8) == expected
    assert "model.safetensors.index.json beside it is not read" in caplog.text


def test_a_whole_file_may_be_one_of_the_shards(checkpoint: Path, sharded: Path) -> None:
    shard = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"][EMBEDDING]
    (sharded / shard).rename(sharded / "model.safetensors")
    weight_map = json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"]
    edit_index(sharded, **{name: "model.safetensors" for name, file in weight_map.items() if file == shard})
    assert PagedDriver(load(sharded), 4).alone(PROMPT, 8) == PagedDriver(load(checkpoint), 4).alone(PROMPT, 8)


def test_what_the_index_leaves_out_counts(tmp_path: Path) -> None:
    """A head of its own is not forgotten because the index does not list it."""
    make_checkpoint(tmp_path, "llama", shard_size="400KB")
    expected = load(tmp_path)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    shard = index["weight_map"].pop(HEAD)
    assert shard in index["weight_map"].values()
    file.write_text(json.dumps(index))
    change_config(tmp_path, tie_word_embeddings=True)
    model = load(tmp_path)
    assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


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
    halves = [load(checkpoint, "dummy", mesh=Mesh(rank, MeshSizes(tp=2))) for rank in range(2)]
    rows = [half.lm_head.weight.data for half in halves]
    assert torch.equal(torch.cat(rows), whole.lm_head.weight)
    down = [half.get_parameter("model.layers.0.mlp.down_proj.weight").data for half in halves]
    assert torch.equal(torch.cat(down, 1), whole.get_parameter("model.layers.0.mlp.down_proj.weight"))

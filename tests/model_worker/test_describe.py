"""What a model tells of itself is what it computes; what tells of more than that is not replaced by kernels."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from radixmesh.services.model_worker import start
from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder, unfusable
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.description import ModelDescription
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.layers.norm import RMSNorm
from radixmesh.services.model_worker.layers.rotary import RotaryEmbedding
from radixmesh.services.model_worker.models import CausalLM, registry
from radixmesh.services.model_worker.models.config import DecoderConfig
from radixmesh.services.model_worker.models.decoder import DecoderLayer
from radixmesh.services.model_worker.models.describe import describe
from radixmesh.services.model_worker.models.llama import LlamaForCausalLM
from radixmesh.services.model_worker.models.loading import describe_model, open_model
from radixmesh.services.model_worker.models.qwen3 import Qwen3ForCausalLM
from radixmesh.services.model_worker.parallel.mesh import Mesh, MeshSizes
from radixmesh.shared.messages import SamplingParams
from tests.checkpoints import change_config, make_checkpoint
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.loaded import CPU, load_model, plain_build
from tests.model_worker.own_families import OWN
from tests.model_worker.paged_driver import PagedDriver, Sequence
from tests.model_worker.plans import Job, PlanDriver

PROMPT, COUNT = [5, 6, 7, 8, 9, 10, 11], 8


def described(path: Path, mesh: Mesh | None = None) -> ModelDescription:
    return describe_model(open_model(path), plain_build(mesh=mesh))


@pytest.mark.parametrize(
    ("family", "overrides", "attention", "around"),
    [
        ("llama", {"attention_bias": True}, {"qkv_bias": True, "output_bias": True}, {}),
        ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}, {}, {"tied_embeddings": True, "norm_eps": 1e-3}),
        ("mistral", {"sliding_window": 7}, {"window": 7}, {}),
        ("qwen2", {}, {"qkv_bias": True}, {}),
        ("qwen3", {"head_dim": 32}, {"head_norm": True, "head_dim": 32, "scale": 32**-0.5}, {}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, {}, {"rotary": "dynamic"}),
    ],
)
def test_a_family_is_described(
    family: str, overrides: dict[str, Any], attention: dict[str, Any], around: dict[str, Any], tmp_path: Path
) -> None:
    make_checkpoint(tmp_path, family, **overrides)
    found = described(tmp_path)
    assert (found.architecture.lower(), found.dtype, found.ranks) == (f"{family}forcausallm", torch.float32, 1)
    assert (found.vocab_size, found.hidden_size, len(found.layers), found.all_own) == (512, 64, 3, ())
    expected = {"heads": 4, "kv_heads": 2, "head_dim": 16, "scale": 0.25, "window": None, **attention}
    flags = {"qkv_bias": False, "output_bias": False, "head_norm": False, **attention}
    for layer in found.layers:
        assert layer.attention is not None
        assert layer.mlp is not None
        assert {name: getattr(layer.attention, name) for name in expected | flags} == flags | expected
        assert (layer.mlp.intermediate, layer.mlp.bias) == (96, False)
    rest = {"tied_embeddings": False, "rotary": "table", "norm_eps": 1e-6, **around}
    assert {name: getattr(found, name) for name in rest} == rest
    assert unfusable(found) == ""
    assert describe(load_model(open_model(tmp_path), dtype=torch.float32)) == found


def test_a_ranks_share_is_described(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "llama")
    found = described(tmp_path, Mesh(1, MeshSizes(tp=2)))
    attention, mlp = found.layers[0].attention, found.layers[0].mlp
    assert attention is not None
    assert mlp is not None
    assert (found.ranks, attention.heads, attention.kv_heads, mlp.intermediate) == (2, 2, 1, 48)
    assert unfusable(found) == "the model is split over ranks"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own")
    make_checkpoint(path, "llama")
    return path


@pytest.fixture
def as_family(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[CausalLM]], Path]:
    """Makes the checkpoint one of a family that has just been added."""

    def add(family: type[CausalLM]) -> Path:
        monkeypatch.setitem(registry.MODELS, "LlamaForCausalLM", family)
        return checkpoint

    return add


@pytest.mark.parametrize("quantization", ["", "w8a16"])
@pytest.mark.parametrize("family", OWN)
def test_what_is_a_familys_own_is_computed_by_the_family(
    family: type[CausalLM],
    quantization: str,
    as_family: Callable[[type[CausalLM]], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As the worker starts it: not in the fused kernels, but over their layers, in as many bits as are wished."""
    library()
    path = as_family(family)
    with caplog.at_level(logging.INFO):
        rank = start.load(settings(path, quantization=quantization), lambda *_: None)
    assert f"steps run layer by layer ({OWN[family]})" in caplog.text
    assert isinstance(rank.engine.runner._executor, TorchExecutor)
    matrix = rank.engine.runner.model.get_parameter("model.layers.0.mlp.down_proj.weight")
    assert matrix.numel() == 0, "the kernels hold it"
    job = Job(PROMPT, SamplingParams(temperature=0.0, max_tokens=COUNT, ignore_eos=True))
    PlanDriver(rank.engine, chunk=4).run([job])
    model = load_model(open_model(path), dtype=torch.float32)
    expected = PagedDriver(model, 4).alone(PROMPT, COUNT)
    assert quantization or job.tokens == expected
    with pytest.raises(ValueError, match="cannot be fused"):
        FusedDecoder(model, KVCache(model.kv_groups(4), 4, CPU.torch_device))


def test_each_of_these_families_says_something_else(as_family: Callable[[type[CausalLM]], Path]) -> None:
    said = []
    families: list[type[CausalLM]] = [LlamaForCausalLM, *OWN]
    for family in families:
        model = load_model(open_model(as_family(family)), dtype=torch.float32)
        said.append(tuple(PagedDriver(model, 4).alone(PROMPT, COUNT)))
    assert said[0] not in said[1:]


def settings(path: Path, **more: Any) -> ModelWorkerSettings:
    sizes: dict[str, Any] = {"num_pages": 32, "page_size": 4, "max_slots": 4, "threads": 1}
    return ModelWorkerSettings(model=str(path), dtype="float32", **sizes, **more)


def test_numbers_of_ones_own_are_fused_as_they_are(as_family: Callable[[type[CausalLM]], Path]) -> None:
    """Scale, windows and angles that the configuration does not have, of an attention that the kernels know."""
    library()

    class Sharper(LlamaForCausalLM):
        @staticmethod
        def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
            made = DecoderLayer(config, layer, build)
            made.self_attn.attend.scale *= 3
            made.self_attn.attend.window = 3 if layer else None
            return made

        def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
            super().__init__(config, build, max_length)
            rope = replace(config.rope, theta=77.0)
            self.model.rotary = RotaryEmbedding(rope, config.head_dim, self.max_length, build.dtype, build.device)

    path = as_family(Sharper)
    rank = start.load(settings(path), lambda *_: None)
    assert isinstance(rank.engine.runner._executor, FusedDecoder)
    job = Job(PROMPT, SamplingParams(temperature=0.0, max_tokens=COUNT, ignore_eos=True))
    PlanDriver(rank.engine, chunk=4).run([job])
    assert job.tokens == PagedDriver(load_model(open_model(path), dtype=torch.float32), 4).alone(PROMPT, COUNT)


def test_a_family_may_read_fields_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and a line of the registry: here a class, and an entry."""

    class ScaledQwen(Qwen3ForCausalLM):
        model_type = "scaled"

        @classmethod
        def read_config(cls, fields: Fields) -> DecoderConfig:
            config = super().read_config(fields)
            return replace(config, rms_norm_eps=fields.number("norm_floor"))

    monkeypatch.setitem(registry.MODELS, "ScaledQwen", ScaledQwen)
    make_checkpoint(tmp_path, "qwen3")
    change_config(tmp_path, architectures=["ScaledQwen"], norm_floor=0.125)
    found = described(tmp_path)
    assert (found.architecture, found.norm_eps) == ("ScaledQwen", 0.125)
    assert unfusable(found) == ""


# -- the context --


def test_every_layer_with_weights_or_heads_gets_the_context(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same one, seats and all, so that adapters, experts and lanes change no signature."""
    model = load_model(open_model(checkpoint), dtype=torch.float32)
    driver = PagedDriver(model, 4)
    seen: dict[str, ForwardContext] = {}
    for name, module in model.named_modules():
        if module is not model and not isinstance(module, nn.ModuleList | RMSNorm | RotaryEmbedding):
            module.register_forward_pre_hook(lambda _module, args, name=name: seen.__setitem__(name, args[-1]))
    batch = driver.batch([(Sequence(PROMPT), len(PROMPT))])
    context = replace(model.begin(batch, driver.kv), adapters=torch.ones(len(PROMPT), dtype=torch.int32), lanes=(7, 3))
    model.logits(model.hidden_states(context, batch.logit_rows), context)
    layer = (
        "",
        ".self_attn",
        ".self_attn.qkv_proj",
        ".self_attn.attend",
        ".self_attn.o_proj",
        ".mlp",
        ".mlp.gate_up_proj",
    )
    expected = {f"model.layers.{i}{part}" for i in range(3) for part in (*layer, ".mlp.down_proj")}
    assert set(seen) == expected | {"model.embed_tokens", "lm_head"}
    assert {id(each) for each in seen.values()} == {id(context)}

"""Devices: what is here works and chooses as it should, what is not says so."""

from pathlib import Path
from typing import Any

import pytest
import torch

from radixmesh.services.model_worker import start
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.devices.choice import open_device
from radixmesh.services.model_worker.devices.cpu import build, device, native
from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention, PackedLinear
from radixmesh.services.model_worker.devices.cpu.native import Native
from radixmesh.services.model_worker.devices.cpu.packed import PackedWeight
from radixmesh.services.model_worker.devices.device import Execution, Wishes, memory_budget
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.errors import DeviceError
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.loading import describe_model, open_model
from radixmesh.services.model_worker.parallel.mesh import Mesh, MeshSizes
from radixmesh.shared.errors import ConfigError
from tests.checkpoints import make_checkpoint
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.loaded import CPU, load_model, plain_build


def test_the_cpu_is_always_there() -> None:
    cpu = CPU
    assert (cpu.torch_device.type, cpu.collectives, cpu.traits.synchronous) == ("cpu", "gloo", True)
    cpu.synchronize()
    assert 0 < cpu.free_memory() <= cpu.total_memory()
    assert memory_budget(cpu, 0.0) == 0
    assert memory_budget(cpu, 1.0) <= cpu.free_memory() * 1.01
    assert cpu.serving_dtype(torch.float32) is torch.float32
    assert cpu.serving_dtype(torch.bfloat16) in (torch.float32, torch.bfloat16)
    assert CpuDevice(library()).serving_dtype(torch.bfloat16) is torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_an_accelerator_auto_is_the_cpu() -> None:
    assert open_device("auto", 0, threads=1).name == "cpu"


@pytest.mark.parametrize("name", ["cuda", "xpu", "npu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    if hasattr(torch, name) and getattr(torch, name).is_available():
        pytest.skip(f"there is a device {name}")
    with pytest.raises(DeviceError, match=f"device '{name}' is not available: "):
        open_device(name, 0, threads=1)


@pytest.mark.parametrize(("name", "own"), [("cuda", "nccl"), ("xpu", "xccl")])
def test_an_accelerator_leaves_the_hosts_tensors_to_gloo(monkeypatch: pytest.MonkeyPatch, name: str, own: str) -> None:
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: True)
    monkeypatch.setattr(getattr(torch, name), "device_count", lambda: 2)
    found = open_device(name, 1, threads=1)
    assert found.torch_device == torch.device(name, 1)
    assert (found.collectives, found.traits.synchronous) == (own, False)
    assert open_device("auto", 0, threads=1).name == name


@pytest.mark.parametrize("name", ["abacus", "xla"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"unknown device '{name}' \(known: auto, cpu, cuda, xpu, npu\)"):
        open_device(name, 0, threads=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    cuda = open_device("cuda", 0, threads=1)
    held = torch.zeros(1 << 28, dtype=torch.uint8, device=cuda.torch_device)
    cuda.synchronize()
    assert cuda.free_memory() <= cuda.total_memory() - held.nbytes
    with pytest.raises(DeviceError, match="does not exist"):
        open_device("cuda", 99, threads=1)


# -- what the CPU chooses --


def settings(path: Path, **more: Any) -> ModelWorkerSettings:
    return ModelWorkerSettings(model=str(path), num_pages=32, page_size=4, max_slots=4, threads=1, **more)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices")
    make_checkpoint(path, "llama")
    return path


def choice(path: Path, kernels: Native | None, wishes: Wishes, **build: Any) -> Execution:
    return CpuDevice(kernels).choose(describe_model(open_model(path), plain_build(**build)), wishes)


@pytest.mark.parametrize(
    ("name", "backend"), [("", NativeAttention), ("native", NativeAttention), ("torch", TorchAttention)]
)
@pytest.mark.parametrize("quantization", ["", "w8a16", "w4a16"])
def test_the_cpu_honours_every_wish(checkpoint: Path, name: str, backend: type, quantization: Any) -> None:
    """An attention that the fused kernels do not have is no reason to forget the quantization."""
    chosen = choice(checkpoint, library(), Wishes(name, quantization))
    assert type(chosen.attention) is backend
    if name == "torch":
        assert chosen.executor is TorchExecutor
        assert isinstance(chosen.linear, PackedLinear)
        assert (chosen.linear.quantization, chosen.deferred) == (quantization, None)
    else:
        assert type(chosen.linear) is TorchLinear
        assert chosen.deferred is not None
        model = load_model(open_model(checkpoint), dtype=torch.float32, deferred=chosen.deferred)
        kv = KVCache(model.kv_groups(4), 4, CPU.torch_device)
        assert isinstance(chosen.executor(model, kv), FusedDecoder)


@pytest.mark.parametrize("exact", [False, True])
def test_exact_weights_stay_so_on_several_ranks_too(
    checkpoint: Path, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = library()
    monkeypatch.setattr(kernels, "prefers_int16", True)
    monkeypatch.setattr(device, "onednn_is_faster", lambda *_: False)
    mesh, wishes = Mesh(0, MeshSizes(tp=2)), Wishes(exact_weights=exact)
    chosen = choice(checkpoint, kernels, wishes, dtype=torch.bfloat16, mesh=mesh)
    model = load_model(open_model(checkpoint), dtype=torch.bfloat16, mesh=mesh, linear=chosen.linear)
    packed = model.get_submodule("model.layers.0.mlp.gate_up_proj").packed
    assert isinstance(packed, PackedWeight)
    stored = checkpoint_matrix(checkpoint, mesh)
    assert torch.equal(packed.rows(0, packed.n), stored) is exact


@pytest.mark.parametrize("quantization", ["w8a16", "w4a16"])
def test_exact_weights_are_not_quantized(checkpoint: Path, quantization: str) -> None:
    with pytest.raises(ConfigError, match=f"--quantization {quantization} rounds .* --exact-weights"):
        start.load(settings(checkpoint, device="cpu", quantization=quantization, exact_weights=True), lambda *_: None)


def checkpoint_matrix(path: Path, mesh: Mesh) -> torch.Tensor:
    model = load_model(open_model(path), dtype=torch.bfloat16, mesh=mesh)
    return model.get_parameter("model.layers.0.mlp.gate_up_proj.weight").float()


@pytest.mark.parametrize("kernels", [True, False])
def test_an_attention_that_is_not_there_is_refused(checkpoint: Path, kernels: bool) -> None:
    native, known = (library(), "native, torch") if kernels else (None, "torch")
    with pytest.raises(DeviceError, match=rf"no attention backend 'telepathy' here \(known: {known}\)"):
        choice(checkpoint, native, Wishes("telepathy"))
    if not kernels:
        with pytest.raises(DeviceError, match="no attention backend 'native' here"):
            choice(checkpoint, native, Wishes("native"))


def test_without_the_kernels_torch_computes_and_quantizes_nothing(checkpoint: Path) -> None:
    chosen = choice(checkpoint, None, Wishes())
    assert (type(chosen.attention), type(chosen.linear), chosen.executor) == (
        TorchAttention,
        TorchLinear,
        TorchExecutor,
    )
    with pytest.raises(ConfigError, match="--quantization w4a16 needs the CPU kernels"):
        choice(checkpoint, None, Wishes(quantization="w4a16"))


def test_a_start_reads_the_library_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    hashed: list[Path] = []
    told: list[str] = []
    true_sum = build._sum

    def counted(path: Path) -> str:
        hashed.append(path)
        return true_sum(path)

    monkeypatch.setattr(build, "_sum", counted)
    monkeypatch.setattr(native, "_found", None)
    start.load(settings(checkpoint), lambda _fraction, what: told.append(what)).close()
    assert len(hashed) == 1
    assert "loading the CPU kernels" in told
    assert "compiling the CPU kernels" not in told


def test_a_rank_that_is_not_in_the_group_does_not_start(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="rank 1 is outside a group of 1"):
        start.load(settings(checkpoint, device="cpu", rank=1), lambda *_: None)

"""Devices: what is here works, what is not says so."""

import pytest
import torch

from radixmesh.services.model_worker.errors import PlatformError
from radixmesh.services.model_worker.platform import get_platform


def test_the_cpu_is_always_there() -> None:
    cpu = get_platform("cpu")
    assert (cpu.device.type, cpu.distributed_backend, cpu.attention_backend) == ("cpu", "gloo", "torch")
    cpu.synchronize()
    assert 0 < cpu.free_memory() <= cpu.total_memory()
    assert cpu.memory_budget(0.0) == 0
    assert cpu.memory_budget(1.0) <= cpu.free_memory() * 1.01
    assert cpu.serving_dtype(torch.float32) is torch.float32
    assert cpu.serving_dtype(torch.bfloat16) in (torch.float32, torch.bfloat16)
    assert cpu.serving_dtype(torch.bfloat16, kernels=True) is torch.bfloat16


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_an_accelerator_auto_is_the_cpu() -> None:
    assert get_platform("auto").name == "cpu"


@pytest.mark.parametrize("name", ["cuda", "xpu", "npu"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    if hasattr(torch, name) and getattr(torch, name).is_available():
        pytest.skip(f"there is a device {name}")
    with pytest.raises(PlatformError, match=f"device '{name}' is not available: "):
        get_platform(name)


@pytest.mark.parametrize(("name", "own"), [("cuda", "nccl"), ("xpu", "xccl")])
def test_an_accelerator_leaves_the_hosts_tensors_to_gloo(monkeypatch: pytest.MonkeyPatch, name: str, own: str) -> None:
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: True)
    monkeypatch.setattr(getattr(torch, name), "device_count", lambda: 2)
    found = get_platform(name, 1)
    assert found.device == torch.device(name, 1)
    assert found.distributed_backend == f"cpu:gloo,{name}:{own}"
    assert get_platform("auto").name == name


@pytest.mark.parametrize("name", ["abacus", "xla"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(PlatformError, match=rf"unknown device '{name}' \(known: auto, cpu, cuda, xpu, npu\)"):
        get_platform(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda() -> None:
    cuda = get_platform("cuda")
    held = torch.zeros(1 << 28, dtype=torch.uint8, device=cuda.device)
    cuda.synchronize()
    assert cuda.free_memory() <= cuda.total_memory() - held.nbytes
    with pytest.raises(PlatformError, match="does not exist"):
        get_platform("cuda", 99)

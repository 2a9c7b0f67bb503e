"""Devices: what is here works, what is not says so."""

import pytest
import torch

from radixmesh.services.model_worker.devices.choice import open_device
from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.device import memory_budget
from radixmesh.services.model_worker.errors import DeviceError
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.loaded import CPU


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

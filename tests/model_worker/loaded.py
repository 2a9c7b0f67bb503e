"""Models as the tests of the worker load them: on the CPU, in torch, unless a test wants it otherwise."""

from typing import Any

import torch

from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.forward.attention import AttentionBackend
from radixmesh.services.model_worker.forward.executor import Executor
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.forward.linear import LinearMethod
from radixmesh.services.model_worker.layers.linear import Build
from radixmesh.services.model_worker.models import CausalLM, loading
from radixmesh.services.model_worker.models.loading import ModelFiles
from radixmesh.services.model_worker.parallel.mesh import Mesh

CPU = CpuDevice()
"""Without the kernels."""


def plain_build(
    device: Device = CPU,
    dtype: torch.dtype = torch.float32,
    mesh: Mesh | None = None,
    linear: LinearMethod | None = None,
    attention: AttentionBackend | None = None,
) -> Build:
    return Build(mesh or Mesh(), dtype, device.torch_device, linear or TorchLinear(), attention or TorchAttention())


def load_model(
    files: ModelFiles,
    device: Device = CPU,
    *,
    dtype: torch.dtype | None = None,
    mesh: Mesh | None = None,
    linear: LinearMethod | None = None,
    attention: AttentionBackend | None = None,
    **options: Any,
) -> CausalLM:
    """`options` are those of the real `load_model`."""
    build = plain_build(device, dtype or device.serving_dtype(files.dtype), mesh, linear, attention)
    return loading.load_model(files, build, **options)


def make_runner(model: CausalLM, kv: KVCache, device: Device = CPU, executor: Executor | None = None) -> ModelRunner:
    """By default the model's modules run."""
    return ModelRunner(model, kv, device, executor or TorchExecutor(model, kv))

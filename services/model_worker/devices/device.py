"""What a device is asked, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.forward.attention import AttentionBackend
from radixmesh.services.model_worker.forward.description import ModelDescription
from radixmesh.services.model_worker.forward.executor import Executor
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.forward.linear import LinearMethod
from radixmesh.services.model_worker.forward.traits import DeviceTraits
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.shared.errors import ConfigError

Quantization: TypeAlias = Literal["", "w8a16", "w4a16"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings ask for; each is honoured or refused."""

    attention: str = ""
    """A backend by name; empty: the device's choice."""
    quantization: Quantization = ""
    exact_weights: bool = False
    """No weight may change a bit."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` for wishes that exclude each other."""
        if self.quantization and self.exact_weights:
            raise ConfigError(f"--quantization {self.quantization} rounds the weights that --exact-weights is to keep")


@dataclass(frozen=True, slots=True)
class Execution:
    """How a model is run."""

    attention: AttentionBackend
    linear: LinearMethod
    executor: Callable[[CausalLM, KVCache], Executor]
    """Called once the model is loaded; may take its weights over."""
    deferred: Deferred | None = None
    """Where `executor` expects the matrices, if they need not be loaded before."""


class Device(Protocol):
    """One device, and all that depends on it."""

    @property
    def name(self) -> str:
        """cpu, cuda, xpu, npu"""
        ...

    @property
    def torch_device(self) -> torch.device:
        """Where tensors lie."""
        ...

    @property
    def collectives(self) -> str:
        """torch.distributed's name of the backend that carries the device's tensors."""
        ...

    @property
    def traits(self) -> DeviceTraits: ...

    def synchronize(self) -> None:
        """Waits until all work queued on the device is done. Raises RuntimeError if it will do no more."""
        ...

    def total_memory(self) -> int:
        """Bytes."""
        ...

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""
        ...

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """`torch.zeros` for a pool, of which what is never written should cost nothing."""
        ...

    def serving_dtype(self, checkpoint: torch.dtype) -> torch.dtype:
        """The dtype to serve a checkpoint in by default: its own, unless that is slow or missing here."""
        ...

    def choose(self, model: ModelDescription, wishes: Wishes) -> Execution:
        """The fastest way to run a model that is right.

        Raises:
            DeviceError: there is no backend of that name here.
            ConfigError: a wish cannot be had here.
        """
        ...


def memory_budget(device: Device, fraction: float) -> int:
    """Bytes left for the KV cache when the worker may hold `fraction` of the device's memory in all.

    Ask once the weights are loaded: what is in use by then is taken off.
    """
    used = device.total_memory() - device.free_memory()
    return max(0, int(device.total_memory() * fraction) - used)

"""Attention backends by name."""

from collections.abc import Callable

from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.torch.attention import TorchAttention
from radixmesh.services.model_worker.errors import PlatformError
from radixmesh.services.model_worker.forward.attention import AttentionBackend


def _native() -> AttentionBackend:
    library = native()
    if library is None:
        raise PlatformError("the attention backend 'native' needs the CPU kernels, which are not to be had here")
    return NativeAttention(library)


_BACKENDS: dict[str, Callable[[], AttentionBackend]] = {"torch": TorchAttention, "native": _native}


def create_backend(name: str) -> AttentionBackend:
    """A fresh backend. Raises `PlatformError` for a name that is not known, or not to be had on this machine."""
    if name not in _BACKENDS:
        raise PlatformError(f"unknown attention backend {name!r} (known: {', '.join(_BACKENDS)})")
    return _BACKENDS[name]()

"""Attention backends by name."""

from radixmesh.services.model_worker.attention.interface import AttentionBackend
from radixmesh.services.model_worker.attention.torch_backend import TorchAttention
from radixmesh.services.model_worker.errors import PlatformError

_BACKENDS: dict[str, type[TorchAttention]] = {"torch": TorchAttention}


def create_backend(name: str) -> AttentionBackend:
    """A fresh backend. Raises `PlatformError` for a name that is not known."""
    if name not in _BACKENDS:
        raise PlatformError(f"unknown attention backend {name!r} (known: {', '.join(_BACKENDS)})")
    return _BACKENDS[name]()

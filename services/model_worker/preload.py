"""What a worker does before torch is imported. Imports next to nothing itself."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

from radixmesh.services.model_worker.devices.cpu import arena

_OTHER_SIZES = ("quantization", "tp", "device", "dtype", "load-format")
"""Flags by which the weights may end up elsewhere than in this process's memory, or in another size."""
_HARMLESS = ("1", "auto", "cpu", "")


def begin() -> None:
    """Asks for the weights' memory, if it is certain where they will lie and how much they will take."""
    flags = sys.argv[1:]
    if size := packed_bytes(flags):
        arena.prepare(size)
    if not _given(dict(_pairs(flags)), "nats-url").startswith("ws"):
        _import_nats_alone()


def _import_nats_alone() -> None:
    """nats-py without aiohttp, which takes a quarter of a second and serves it only behind web sockets."""
    if "aiohttp" not in sys.modules and "nats" not in sys.modules:
        sys.modules["aiohttp"] = None  # type: ignore[assignment]  # Python's way of saying "not there"
        try:
            import_module("nats.aio.client")
        finally:
            del sys.modules["aiohttp"]


def packed_bytes(flags: Iterable[str]) -> int:
    """Bytes that the packed matrices take at least, as far as can be told from flags and files; 0 if it cannot."""
    given = dict(_pairs(flags))
    if os.environ.get("RADIXMESH_KERNELS") == "torch" or _accelerators():
        return 0
    try:
        model = Path(given["model"])
        config = json.loads((model / "config.json").read_bytes())
        as_stored = (*_HARMLESS, config.get("dtype") or config.get("torch_dtype"))
        if any(_given(given, flag) not in as_stored for flag in _OTHER_SIZES):
            return 0
        total = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    except (KeyError, OSError, ValueError, AttributeError):  # who loads the model will say what is wrong with it
        return 0
    return total // 4 * 3 if total < _available() // 2 else 0  # an embedding of its own is not packed


def _given(flags: Mapping[str, str], name: str) -> str:
    """A setting as its flag or its variable says; empty if neither is there."""
    return flags.get(name, os.environ.get(f"RADIXMESH_{name.upper().replace('-', '_')}", ""))


def _pairs(flags: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(name, value) of ``--name value`` and ``--name=value``."""
    words = list(flags)
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            yield name, value or following


def _accelerators() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists() or Path("/dev/dri").exists()


def _available() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

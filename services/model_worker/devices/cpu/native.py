"""The compiled library and its structs. Field for field what `src/*.h` says."""

import ctypes
import functools
import logging
import os
from collections.abc import Callable
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.build import BuildError, caches, library_path

log = logging.getLogger(__name__)

FORCE_ENV = "RADIXMESH_KERNELS"
"""`torch`: never use the kernels. `native`: fail rather than do without. Else they are used if they can be built."""

KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
"""`Kind` in weight.h, for plain arrays and for weights that are not quantized."""
INT8, INT4, INT12 = 3, 4, 5

_PROBLEMS: dict[int, tuple[type[Exception], str]] = {
    1: (MemoryError, "no memory for a step's activations"),
    2: (IndexError, "a token id is outside the vocabulary"),
    3: (IndexError, "a position is outside the rotary table"),
    4: (IndexError, "a page is outside the KV cache"),
    5: (IndexError, "a wanted row is outside the batch"),
}
"""`Problem` in decoder.h: an error's type and text. Each is raised anew: a raised one holds on to its frames."""


class Weight(ctypes.Structure):
    """weight.h"""

    _fields_ = (
        ("data", c_void_p),
        ("bias", c_void_p),
        ("kind", c_int32),
        ("panels", c_int32),
        ("k", c_int32),
        ("group", c_int32),
    )


class Layer(ctypes.Structure):
    """decoder.h"""

    _fields_ = (
        ("qkv", Weight),
        ("o", Weight),
        ("gate_up", Weight),
        ("down", Weight),
        ("input_norm", c_void_p),
        ("post_norm", c_void_p),
        ("q_norm", c_void_p),
        ("k_norm", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("window", c_int64),
        ("group", c_int64),
    )


class Group(ctypes.Structure):
    """decoder.h"""

    _fields_ = (("num_pages", c_int64), ("window", c_int64))


class Model(ctypes.Structure):
    """decoder.h"""

    _fields_ = (
        ("layers", POINTER(Layer)),
        ("tied", POINTER(Weight)),
        ("embedding", c_void_p),
        ("norm", c_void_p),
        ("head", Weight),
        ("groups", POINTER(Group)),
        ("num_groups", c_int64),
        *(
            (name, c_int32)
            for name in (
                *("embedding_kind", "cache_kind", "num_layers", "hidden", "heads", "kv_heads", "head_dim"),
                *("inner", "vocab", "page_size"),
            )
        ),
        ("eps", c_float),
        ("scale", c_float),
    )


class Pages(ctypes.Structure):
    """decoder.h"""

    _fields_ = (("kv_locations", c_void_p), ("tables", c_void_p), ("table_width", c_int64))


class Batch(ctypes.Structure):
    """decoder.h"""

    _fields_ = (
        *((name, c_void_p) for name in ("token_ids", "positions", "query_start", "context_len")),
        ("pages", POINTER(Pages)),
        *((name, c_void_p) for name in ("rows", "cos", "sin")),
        *((name, c_int64) for name in ("rope_rows", "tokens", "sequences", "num_rows")),
    )


class Heads(ctypes.Structure):
    """attention_once.h"""

    _fields_ = (("data", c_void_p), ("stride", c_int64), ("kind", c_int64))


class PagedLayer(ctypes.Structure):
    """attention_once.h"""

    _fields_ = (
        ("keys", c_void_p),
        ("values", c_void_p),
        ("num_pages", c_int64),
        *((name, c_int32) for name in ("kind", "heads", "kv_heads", "head_dim", "page_size")),
    )


_SIGNATURES = {
    "rm_prefers_int16": (c_int32, ()),
    "rm_panel_width": (c_int32, ()),
    "rm_packed_bytes": (c_int64, (POINTER(Weight),)),
    "rm_threads": (c_int32, ()),
    "rm_set_threads": (None, (c_int32,)),
    "rm_huge_pages": (None, (c_void_p, c_int64)),
    "rm_pack": (c_int32, (POINTER(Weight), c_void_p, c_int32, c_int64, c_int64, c_int64)),
    "rm_unpack": (None, (POINTER(Weight), c_int64, c_int64, c_void_p)),
    "rm_linear": (c_int32, (POINTER(Weight), c_void_p, c_int64, c_void_p, c_int64)),
    "rm_forward": (c_int32, (POINTER(Model), POINTER(Batch), c_void_p)),
    "rm_attention": (
        c_int32,
        (
            *(POINTER(PagedLayer), POINTER(Batch), POINTER(Heads), POINTER(Heads), POINTER(Heads)),
            *(c_float, c_int64, c_void_p),
        ),
    ),
    "rm_read": (c_float, (c_void_p, c_int64)),
    "rm_multiply_add": (c_float, (c_int64,)),
}


class Native:
    """The library's functions under their names, and what Python needs to know of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.panel_width: int = self.library.rm_panel_width()
        self.prefers_int16 = bool(self.library.rm_prefers_int16())

    def set_threads(self, count: int) -> None:
        """Threads of all later calls, the caller's included."""
        self.library.rm_set_threads(count)

    @property
    def threads(self) -> int:
        count: int = self.library.rm_threads()
        return count


def check(problem: int) -> None:
    """Raises what a call returned."""
    if problem:
        kind, text = _PROBLEMS[problem]
        raise kind(text)


def pointer(tensor: Tensor) -> int:
    """The address of a contiguous CPU tensor."""
    if not tensor.is_contiguous() or tensor.device.type != "cpu":
        raise ValueError("a kernel needs a contiguous tensor on the CPU")
    return tensor.data_ptr()


_found: tuple[Native | None, str] | None = None
"""The library, or why there is none, once it has been looked for."""


def native(building: Callable[[], None] = lambda: None) -> Native | None:
    """The library, or None where it is switched off or cannot be built; why is logged once.

    building: called before it is compiled.

    Raises `BuildError` if it is wanted in any case and cannot be had.
    """
    global _found
    wish = os.environ.get(FORCE_ENV, "")
    if wish == "torch":
        return None
    _found = _found or _find(building)
    library, why = _found
    if library is None:
        if wish == "native":
            raise BuildError(why)
        _warn(why)
    return library


def _find(building: Callable[[], None]) -> tuple[Native | None, str]:
    problems = []
    try:
        for cache in caches():
            try:
                return Native(library_path(cache, building)), ""
            except OSError as error:  # it cannot be written, or nothing in it may be executed
                problems.append(f"{cache}: {error.strerror or error}")
    except (BuildError, OSError, AttributeError) as error:
        problems.append(str(error))
    return None, "; ".join(problems)


@functools.cache
def _warn(why: str) -> None:
    log.warning("CPU kernels are not used, torch computes instead, which is many times slower: %s", why)

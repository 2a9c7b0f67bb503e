"""Matrices packed for the kernels. See `src/weight.h` for the layout."""

import ctypes
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from radixmesh.services.model_worker.kernels.native import INT4, INT8, INT16, KINDS, Native, Weight, check, pointer

Quantization = Literal["", "w8a16", "w4a16"]
QUANTIZATIONS: tuple[Quantization, ...] = ("", "w8a16", "w4a16")


@dataclass(frozen=True, slots=True)
class Format:
    """How a matrix is stored: its own dtype, or integers with a scale per `group` inputs.

    `INT16` is for bfloat16 where products of integers are faster than those of floats (1.6 times with AVX2): 13 bits
    and a scale per 128 inputs hold a matrix to 2e-4 of its norm, a tenth of what rounding to bfloat16 itself costs. As
    with all integers, inputs are rounded to the same 13 bits (with 8 and 4 bits: to 16) of the largest of each 128 of a
    row, and sums are exact: results do not depend on what else is in the batch.
    """

    kind: int | None = None  # None: the matrix's own dtype
    group: int = 0

    @classmethod
    def of(
        cls, quantization: Quantization, head: bool = False, dtype: torch.dtype | None = None, int16: bool = False
    ) -> "Format":
        """For a matrix of `dtype`.

        head: it is the output head, which w4a16 keeps in 8 bits (a quarter of the error for 3% of the bytes).
        int16: these are wanted for bfloat16.
        """
        if quantization == "" and int16 and dtype is torch.bfloat16:
            return cls(INT16, 128)
        if quantization == "w8a16" or (quantization == "w4a16" and head):
            return cls(INT8, 128)
        if quantization == "w4a16":
            return cls(INT4, 32)
        return cls()


class PackedWeight:
    """One or several matrices [n, k] of the same k as panels; `struct` is what the library takes.

    With several, their panels alternate (gate and up: a thread has both parts of an output). Values are copied.
    """

    def __init__(
        self,
        native: Native,
        matrices: Sequence[Tensor],
        biases: Sequence[Tensor] | None = None,
        form: Format | None = None,
        arena: "Arena | None" = None,
    ) -> None:
        """`arena`: where to put it; by default in memory of its own."""
        form = form or Format()
        width, count = native.panel_width, len(matrices)
        self.native = native
        self.n, self.k = matrices[0].shape
        panels = -(-self.n // width)
        kind = KINDS[matrices[0].dtype] if form.kind is None else form.kind
        self.bias = None if biases is None else _weave(biases, panels, width)
        bias = None if self.bias is None else pointer(self.bias)
        self.struct = Weight(None, bias, kind, panels * count, self.k, form.group)
        self.nbytes: int = native.library.rm_packed_bytes(self._ref)
        self.struct.data, self._memory = (arena or Arena(self.nbytes)).take(self.nbytes)
        for index, matrix in enumerate(matrices):
            if matrix.shape != (self.n, self.k):
                raise ValueError(f"matrices packed together must be of one shape, not {tuple(matrix.shape)} too")
            source = pointer(matrix)
            check(native.library.rm_pack(self._ref, source, KINDS[matrix.dtype], self.n, index, count))

    @property
    def _ref(self) -> object:
        return ctypes.byref(self.struct)

    def multiply(self, x: Tensor) -> Tensor:
        """x float32 [T, k], contiguous -> float32 [T, n]. For one matrix."""
        out = torch.empty(x.shape[0], self.n)
        check(self.native.library.rm_linear(self._ref, pointer(x), x.shape[0], pointer(out), self.n))
        return out

    def rows(self, first: int, count: int) -> Tensor:
        """What is stored, as float32 [count, k]. For one matrix."""
        if first < 0 or count < 0 or first + count > self.n:
            raise IndexError(f"rows {first} to {first + count} of {self.n}")
        out = torch.empty(count, self.k)
        self.native.library.rm_unpack(self._ref, first, count, pointer(out))
        return out


_HUGE_PAGE = 1 << 21
_ALIGN = 256


class Arena:
    """Packs matrices closely, so that small ones share huge pages."""

    def __init__(self, chunk_bytes: int = 64 << 20) -> None:
        self._chunk_bytes = chunk_bytes
        self._chunk = _Memory(0)
        self._used = self._size = 0

    def take(self, size: int) -> tuple[int, object]:
        """An address with `size` bytes, zero and aligned for vectors; they live as long as the object."""
        if self._used + size > self._size:
            self._used, self._size = 0, max(size, self._chunk_bytes)
            self._chunk = _Memory(self._size)
        address = self._chunk.address + self._used
        self._used += -(-size // _ALIGN) * _ALIGN
        return address, self._chunk


class _Memory:
    """Anonymous memory in huge pages where the system has them: streaming 1 GB walks 2 MB pages, not 4 KB ones."""

    def __init__(self, size: int) -> None:
        align = _HUGE_PAGE if size >= _HUGE_PAGE else mmap.PAGESIZE
        # What is never touched takes no memory. Python's default is shared memory, which rarely gets huge pages.
        self._map = mmap.mmap(-1, max(size, 1) + align, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE") and size >= _HUGE_PAGE:
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = -(-ctypes.addressof(self._view) // align) * align


def _weave(biases: Sequence[Tensor], panels: int, width: int) -> Tensor:
    """float32 [panels * matrices * width], padded with zeros."""
    out = torch.zeros(panels, len(biases), width)
    for index, bias in enumerate(biases):
        padded = torch.zeros(panels * width)
        padded[: len(bias)] = bias.float()
        out[:, index] = padded.view(panels, width)
    return out.flatten()

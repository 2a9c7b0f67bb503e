"""Matrices packed for the kernels. See `src/weight.h` for the layout."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.arena import Arena
from radixmesh.services.model_worker.devices.cpu.native import INT4, INT8, INT12, KINDS, Native, Weight, check, pointer
from radixmesh.services.model_worker.devices.device import Quantization

QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)


@dataclass(frozen=True, slots=True)
class Format:
    """How a matrix is stored: its own dtype, or integers with a scale per `group` inputs.

    `INT12` is for bfloat16 where products of integers are faster than those of floats (1.6 times with AVX2): 12 bits
    and a scale per 128 inputs hold a matrix to 4e-4 of its norm, a quarter of what rounding to bfloat16 itself costs,
    and take three quarters of its bytes. As with all integers, inputs are rounded to 14 bits (with 8 and 4 bits: to 16)
    of the largest of each 128 of a row, and sums are exact: results do not depend on what else is in the batch.
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
            return cls(INT12, 128)
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
        matrices: Sequence[Tensor | Sequence[Tensor]],
        biases: Sequence[Tensor] | None = None,
        form: Format | None = None,
        arena: Arena | None = None,
    ) -> None:
        """
        matrices: each whole, or in blocks of rows from the top down.
        arena: where to put it; by default in memory of its own.
        """
        form = form or Format()
        width, count = native.panel_width, len(matrices)
        rows = [_blocks(matrix, width) for matrix in matrices]
        self.native = native
        self.n, self.k = sum(len(block) for block in rows[0]), rows[0][0].shape[1]
        panels = -(-self.n // width)
        kind = KINDS[rows[0][0].dtype] if form.kind is None else form.kind
        self.bias = None if biases is None else _weave(biases, panels, width)
        bias = None if self.bias is None else pointer(self.bias)
        self.struct = Weight(None, bias, kind, panels * count, self.k, form.group)
        self.nbytes: int = native.library.rm_packed_bytes(self._ref)
        self.struct.data, self._memory = (arena or Arena(self.nbytes)).take(self.nbytes)
        for index, blocks in enumerate(rows):
            shape = sum(len(block) for block in blocks), blocks[0].shape[1]
            if shape != (self.n, self.k):
                raise ValueError(f"matrices packed together must be of one shape, not {shape} too")
            panel = index
            for block in blocks:
                check(native.library.rm_pack(self._ref, pointer(block), KINDS[block.dtype], len(block), panel, count))
                panel += len(block) // width * count

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


def _blocks(matrix: Tensor | Sequence[Tensor], width: int) -> Sequence[Tensor]:
    """A matrix in blocks of rows that fill whole panels, all but the last."""
    if isinstance(matrix, Tensor):
        return [matrix]
    return matrix if all(len(block) % width == 0 for block in matrix[:-1]) else [torch.cat(list(matrix))]


def _weave(biases: Sequence[Tensor], panels: int, width: int) -> Tensor:
    """float32 [panels * matrices * width], padded with zeros."""
    out = torch.zeros(panels, len(biases), width)
    for index, bias in enumerate(biases):
        padded = torch.zeros(panels * width)
        padded[: len(bias)] = bias.float()
        out[:, index] = padded.view(panels, width)
    return out.flatten()

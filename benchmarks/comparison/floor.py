"""How fast this machine reads memory: no decode step can be faster than reading its weights once."""

import ctypes
import shutil
import subprocess
import threading
import time
from pathlib import Path

import numpy as np

_SOURCE = r"""
#include <stddef.h>
#include <stdint.h>

uint64_t read_all(const uint64_t *data, size_t words) {
    uint64_t sums[32] = {0};
    for (size_t i = 0; i + 32 <= words; i += 32) {
        __builtin_prefetch(data + i + 512);
        for (int j = 0; j < 32; j++) sums[j] += data[i + j];
    }
    uint64_t sum = 0;
    for (int j = 0; j < 32; j++) sum += sums[j];
    return sum;
}
"""
PASSES = 5


class FloorError(Exception):
    """It cannot be measured here; its text says why."""


class Floor:
    """Reads a buffer of a model's size with some threads, each its own part."""

    def __init__(self, directory: Path, threads: int) -> None:
        """Compiles the loop into `directory`. Raises FloorError."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise FloorError("there is no C compiler")
        source, library = directory / "floor.c", directory / "floor.so"
        source.write_text(_SOURCE)
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise FloorError(f"the C compiler failed: {built.stderr.strip()[-300:]}")
        self._read = ctypes.CDLL(str(library)).read_all
        self._read.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._read.restype = ctypes.c_uint64
        self._threads = threads

    def gb_per_s(self, size: int) -> float:
        """The best of `PASSES` passes over `size` bytes: what disturbs a pass is not the memory."""
        words = size // 8 // self._threads * self._threads
        # Ones, not zeros: pages never written to are all the same page.
        data = np.ones(words, np.uint64)
        return max(self._pass(data) for _ in range(PASSES)) / 1e9

    def _pass(self, data: np.ndarray) -> float:
        """Bytes per second. ctypes lets go of the interpreter's lock while the loop runs."""
        each = data.size // self._threads
        parts = [data.ctypes.data + i * each * data.itemsize for i in range(self._threads)]
        threads = [threading.Thread(target=self._read, args=(part, each)) for part in parts]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return data.nbytes / (time.perf_counter() - began)

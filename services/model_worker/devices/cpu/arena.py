"""Memory for packed matrices. Knows nothing of torch: it can be asked for while torch is still being imported."""

import ctypes
import mmap
import threading

_HUGE_PAGE = 1 << 21
_ALIGN = 256
_PIECE = 16 << 20


class Memory:
    """Anonymous memory in huge pages where the system has them: streaming 1 GB walks 2 MB pages, not 4 KB ones."""

    def __init__(self, size: int) -> None:
        align = _HUGE_PAGE if size >= _HUGE_PAGE else mmap.PAGESIZE
        # What is never touched takes no memory. Python's default is shared memory, which rarely gets huge pages.
        self._map = mmap.mmap(-1, max(size, 1) + align, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE") and size >= _HUGE_PAGE:
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.size = size
        self.address = -(-ctypes.addressof(self._view) // align) * align

    def give_back(self, offset: int) -> None:
        """The pages from `offset` on become untouched ones; what they held is lost."""
        start = -(-(self.address + offset - ctypes.addressof(self._view)) // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and start < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, start, len(self._map) - start)


class Arena:
    """Packs matrices closely, so that small ones share huge pages."""

    def __init__(self, chunk_bytes: int = 64 << 20) -> None:
        self._chunk_bytes = chunk_bytes
        self._chunk = Memory(0)
        self._used = 0

    def take(self, size: int) -> tuple[int, object]:
        """An address with `size` bytes, zero and aligned for vectors; they live as long as the object."""
        if self._used + size > self._chunk.size:
            ready = _take_prepared(size)
            self._used, self._chunk = 0, ready or Memory(max(size, self._chunk_bytes))
        address = self._chunk.address + self._used
        self._used += -(-size // _ALIGN) * _ALIGN
        return address, self._chunk

    def finish(self) -> None:
        """Gives back what was prepared and has not been taken."""
        self._chunk.give_back(self._used)


class _Preparation:
    """Memory that the system is asked for before it is needed."""

    def __init__(self, size: int) -> None:
        self.memory = Memory(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._populate, name="memory", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _populate(self) -> None:
        # Not by `madvise`, which would lock all the process's mappings and with them the loading of libraries.
        for offset in range(0, self.memory.size, _PIECE):
            if self._stop.is_set():  # it is needed now: the rest comes as it is touched
                return
            ctypes.memset(self.memory.address + offset, 0, min(_PIECE, self.memory.size - offset))


_prepared: _Preparation | None = None


def prepare(size: int) -> None:
    """Begins to ask the system for `size` bytes, which the next arena to need a chunk gets. Works once at a time.

    Clearing a gigabyte takes the system a tenth of a second, and a virtual machine whose host has to find the memory
    first some seconds; meanwhile a thread without the GIL can do something else.
    """
    global _prepared
    if _prepared is None:
        _prepared = _Preparation(size)


def _take_prepared(size: int) -> Memory | None:
    """What was prepared, if it holds `size` bytes; once."""
    global _prepared
    preparation, _prepared = _prepared, None
    if preparation is None:
        return None
    preparation.end()
    return preparation.memory if preparation.memory.size >= size else None

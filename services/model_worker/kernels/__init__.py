"""C++ kernels for CPUs: compiled at first use, cached on disk, called through ctypes (which frees the GIL meanwhile)."""

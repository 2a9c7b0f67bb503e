"""C++ kernels for CPUs: compiled at first use, cached on disk, called through ctypes, which lets go of the GIL."""

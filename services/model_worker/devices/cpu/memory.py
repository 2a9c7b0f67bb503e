"""How much memory the host, or the container that this is, has and can still give."""

import os
from pathlib import Path


def total_memory() -> int:
    """Bytes, or the container's limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(physical, _cgroup_bytes("memory.max") or physical)


def free_memory() -> int:
    """Bytes that can still be allocated."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        # MemAvailable counts the page cache, which gives way (the weights just read are in it).
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used + _cgroup_reclaimable())
    return free


def _cgroup_bytes(file: str) -> int | None:
    """A number of this container's memory controller (cgroup v2), or None where there is no limit."""
    try:
        text = Path("/sys/fs/cgroup", file).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _cgroup_reclaimable() -> int:
    """Bytes of page cache counted against this container that the kernel gives back under pressure."""
    stat = Path("/sys/fs/cgroup/memory.stat")
    if not stat.exists():
        return 0
    fields = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines())
    return int(fields.get("inactive_file", 0))

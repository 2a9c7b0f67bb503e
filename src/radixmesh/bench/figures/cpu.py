"""CPU time of other processes, from /proc/<pid>/stat. Linux only; it ticks every 10 ms."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from radixmesh.bench.settings import BenchError

TREE = "tree"
REST = "tree, rest"


class _Stat(NamedTuple):
    parent: int
    own: int
    """Ticks of user and system time of all its threads."""
    reaped: int
    """Ticks of its children that ended and were waited for, and of theirs."""


class CpuMeter:
    """CPU seconds so far of named processes, and of a process with all its descendants.

    A tree counts what its ended children used, which their parent inherits, so that processes may come and go
    during a run. `REST` is the tree without the named processes that belong to it: with the worker named, it
    is what everything else costs.
    """

    def __init__(self, named: tuple[tuple[str, int], ...], tree: int | None) -> None:
        if (named or tree is not None) and not sys.platform.startswith("linux"):
            raise BenchError("--pid-cpu and --cpu-of-tree read /proc: they work on Linux only")
        self._named = named
        self._tree = tree

    def read(self) -> dict[str, float]:
        """Seconds by name. Raises BenchError when a process does not exist (any more)."""
        ticks = {name: _stat(pid).own for name, pid in self._named}
        if self._tree is not None:
            family = _family(self._tree)
            ticks[TREE] = sum(stat.own + stat.reaped for stat in family.values())
            inside = [ticks[name] for name, pid in self._named if pid in family]
            if inside:
                ticks[REST] = ticks[TREE] - sum(inside)
        return {name: count / os.sysconf("SC_CLK_TCK") for name, count in ticks.items()}


def _stat(pid: int) -> _Stat:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"cannot measure CPU time: no process {pid}") from None
    # The name, in parentheses, may hold spaces and parentheses itself: what follows the last one starts with
    # field 3 of proc(5).
    fields = text.rpartition(")")[2].split()
    user, system, child_user, child_system = map(int, fields[11:15])
    return _Stat(int(fields[1]), user + system, child_user + child_system)


def _family(root: int) -> dict[int, _Stat]:
    """`root` and its descendants."""
    stats = {root: _stat(root)}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != root:
            try:
                stat = stats[int(entry)] = _stat(int(entry))
            except BenchError:
                continue  # ended between the listing and the read
            children.setdefault(stat.parent, []).append(int(entry))
    family, fresh = {}, [root]
    while fresh:
        pid = fresh.pop()
        family[pid] = stats[pid]
        fresh += children.get(pid, [])
    return family

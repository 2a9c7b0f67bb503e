"""One rank of `test_mesh`: python -m NAME RANK SIZE RENDEZVOUS OUT BACKEND TP PP EP DP

Tells, of each group along an axis, what came of it: its place, and the world ranks that took part in its collectives.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from radixmesh.services.model_worker.parallel.mesh import AXES, Collectives, Mesh, MeshSizes

# Stands for an accelerator's own backend, which refuses a CPU's tensors, as NCCL does.
dist.Backend.register_backend("deviceonly", dist.ProcessGroupGloo, devices=["cuda"])


def heard(by: Collectives, rank: int) -> dict[str, Any]:
    """What each collective gives, if ranks say who they are."""
    return {
        "gathered": by.all_gather(torch.tensor([rank])).tolist(),
        "sum": int(by.all_reduce(torch.tensor([10**rank]))),
        "last": int(by.broadcast(torch.tensor([rank]), source=by.size - 1)),
    }


def refuses(by: Collectives) -> bool:
    """Whether a CPU's tensors are none for the device's own backend."""
    try:
        by.all_reduce(torch.zeros(1))
    except RuntimeError:
        return True
    return False


def main(rank: int, size: int, rendezvous: str, out: Path, backend: str, *sizes: str) -> None:
    torch.set_num_threads(1)
    by_axis = dict(zip(AXES, map(int, sizes), strict=True))
    mesh = Mesh.connect(rank, MeshSizes(**by_axis), backend, f"file://{rendezvous}")
    found: dict[str, Any] = {}
    for name in (*AXES, "world"):
        group = getattr(mesh, name)
        own = heard(group, rank) if backend == "gloo" else group.size == 1 or refuses(group)
        found[name] = {"place": [group.rank, group.size], "device": own, "control": heard(group.control, rank)}
    # Layers and the inbox hold on to them; torch's own must be gone before the interpreter is, or threads abort it.
    held = [part for name in found for group in [getattr(mesh, name)] for part in (group, group.control)]
    mesh.world.control.barrier()  # nobody leaves while others still talk
    mesh.close()
    assert all(part._group is None for part in held)
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])

"""One rank of `test_parallel`: python -m NAME RANK SIZE RENDEZVOUS OUT CHECKPOINT..."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from radixmesh.services.model_worker.models import open_model
from radixmesh.services.model_worker.parallel.mesh import Mesh, MeshSizes
from tests.model_worker.loaded import load_model
from tests.model_worker.paged_driver import PagedDriver, Sequence

PROMPTS = [[(7 * i * i + 3 * i + 11) % 509 for i in range(n)] for n in (5, 19)]
COUNT = 10


def main(rank: int, size: int, rendezvous: str, out: Path, checkpoints: list[str]) -> None:
    torch.set_num_threads(1)
    mesh = Mesh.connect(rank, MeshSizes(tp=size), "gloo", f"file://{rendezvous}")
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for path in checkpoints:
            model = load_model(open_model(path), dtype=torch.float32, mesh=mesh)
            driver = PagedDriver(model, 4)
            logits = driver.step([(Sequence(PROMPTS[1]), len(PROMPTS[1]))])
            results[Path(path).name] = {
                "tokens": driver.mixed(PROMPTS, COUNT, chunk=6),
                "digest": hashlib.sha256(logits.numpy().tobytes()).hexdigest(),
                "width": logits.shape[1],
                "kv_heads": driver.kv.pools[0].spec.num_kv_heads,
            }
        shared = mesh.tp.broadcast(torch.tensor([rank + 5]))
        results["broadcast"] = int(shared)
    out.write_text(json.dumps(results))
    mesh.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5:])

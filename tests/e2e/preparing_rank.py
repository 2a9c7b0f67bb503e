"""One rank of a worker group: python -m tests.e2e.preparing_rank RANK SIZE RENDEZVOUS OUT NATS_URL NAMESPACE MODEL

Rank 0 has what is asked for at once, the others when something is said on `NAMESPACE.wake`. At the word on
`NAMESPACE.end` it ends, and tells what it has prepared.
"""

import asyncio
import json
import sys
from pathlib import Path
from unittest.mock import patch

from radixmesh.services.model_worker import service
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.service import ModelWorker
from radixmesh.shared.bus.connection import Bus
from tests.model_worker.preparers import SleepingPreparer, loading


async def run(settings: ModelWorkerSettings, preparer: SleepingPreparer) -> None:
    bus, worker = await Bus.connect(settings, "test"), ModelWorker(settings)
    await bus.subscribe(f"{settings.namespace}.wake", lambda _envelope: preparer.wake.set())
    await bus.subscribe(f"{settings.namespace}.end", lambda _envelope: worker.stop())
    await worker.run()
    await bus.close()


def main(rank: int, size: int, rendezvous: str, out: Path, nats_url: str, namespace: str, model: str) -> None:
    preparer = SleepingPreparer()
    if rank == 0:
        preparer.wake.set()
    settings = ModelWorkerSettings(
        nats_url=nats_url,
        namespace=namespace,
        heartbeat_interval=0.2,
        instance=f"w{rank}",
        group="w",
        rank=rank,
        tp=size,
        dist_init=f"file://{rendezvous}",
        model=model,
        dtype="float32",
        max_slots=4,
        num_pages=64,
        threads=1,
    )
    with patch.object(service, "load", loading(preparer)):
        asyncio.run(run(settings, preparer))
    out.write_text(json.dumps({"begun": preparer.begun, "threads": sorted(preparer.threads)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])

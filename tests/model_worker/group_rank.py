"""One rank of two, on their way to the same tokens: python -m NAME RANK SIZE RENDEZVOUS OUT DEVICE BACKEND MODEL

It takes plans from an `OrderedInbox`, then runs a few sequences; rank 1 gets plans that rank 0 does not, and computes
logits that lead elsewhere.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from radixmesh.services.model_worker.devices.choice import open_device
from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.group.rank_order import OrderedInbox
from radixmesh.services.model_worker.models import open_model
from radixmesh.services.model_worker.parallel.mesh import Collectives, Mesh, MeshSizes
from radixmesh.shared.messages import SamplingParams, StepPlan
from tests.model_worker.guesses import GivenDrafts
from tests.model_worker.loaded import load_model, make_runner
from tests.model_worker.plans import Job, PlanDriver
from tests.model_worker.ranks import run_ranks

SIZE = 2
POISON = 499
"""A token on which rank 0 computes what is no number."""
PROMPTS = [[5, 6, 7], [(7 * i * i + 3 * i + 11) % 490 for i in range(19)], [8, POISON]]
PARAMS = [
    SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True),
    SamplingParams(temperature=1.0, seed=3, max_tokens=12, ignore_eos=True, repetition_penalty=1.2),
    SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True),
]


def jobs() -> list[Job]:
    return [Job(prompt, params, arrives=i) for i, (prompt, params) in enumerate(zip(PROMPTS, PARAMS, strict=True))]


# Stands for a device's own backend: a group that has no other refuses a CPU's tensors, as with NCCL.
dist.Backend.register_backend("deviceonly", dist.ProcessGroupGloo, devices=["cuda"])


def order(control: Collectives) -> list[tuple[int, int]]:
    """What this rank runs, of an inbox of its own."""
    ours = [(1, 0), (1, 1), (2, 0), (2, 1)] if control.rank == 0 else [(0, 7), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    inbox = OrderedInbox(control)
    for epoch, seq in ours:
        inbox.put(StepPlan(epoch=epoch, seq=seq))
    plans = [inbox.next(block=True) for _ in range(4)]
    return [(plan.epoch, plan.seq) for plan in plans if isinstance(plan, StepPlan)]


def sequences(mesh: Mesh, device: Device, path: str) -> dict[str, list[Any]]:
    """Tokens, or why there are none, of each of `jobs`: without drafts, and with some of which a third is wrong."""
    model = load_model(open_model(path), device, dtype=torch.float32, mesh=mesh)
    runner = make_runner(model, KVCache(model.kv_groups(4), 64, device.torch_device), device)
    executor = runner._executor
    true_logits, true_states = executor.logits, executor.hidden_states
    poisoned: list[int] = []

    def hidden_states(context: ForwardContext, rows: Any) -> Any:
        poisoned[:] = [rows.tolist().index(token) for token in (context.batch.token_ids == POISON).nonzero()]
        return true_states(context, rows)

    def logits(hidden: torch.Tensor, context: ForwardContext) -> torch.Tensor:
        out = true_logits(hidden, context)
        if mesh.rank == 1:
            return -out
        out[poisoned] = float("nan")
        return out

    executor.hidden_states, executor.logits = hidden_states, logits  # type: ignore[method-assign]  # that is the point
    plain = run(runner, None)
    told = {len(prompt): [*tokens] for prompt, tokens in zip(PROMPTS, plain, strict=True)}

    def guess(slot: Slot) -> list[int]:
        known = told[slot.prompt_len][slot.output_len :]
        return [] if slot.prompt_len == len(PROMPTS[-1]) else [(t + (t % 3 == 0)) % POISON for t in known]

    return {"sequences": plain, "guessed": run(runner, GivenDrafts(3, guess))}


def run(runner: ModelRunner, drafts: GivenDrafts | None) -> list[Any]:
    todo = jobs()
    engine = Engine(runner, max_slots=4, max_model_len=64, page_size=4, eos_token_ids=[], drafts=drafts)
    PlanDriver(engine).run(todo)
    return [job.failure or job.tokens for job in todo]


def run_group(device: str, backend: str, folder: Path, checkpoint: Path) -> list[dict[str, Any]]:
    """What both ranks came to: `order` and `sequences`."""
    return run_ranks("tests.model_worker.group_rank", SIZE, folder, device, backend, checkpoint)


def main(rank: int, size: int, rendezvous: str, out: Path, device: str, backend: str, path: str) -> None:
    torch.set_num_threads(1)
    mesh = Mesh.connect(rank, MeshSizes(tp=size), backend, f"file://{rendezvous}")
    with torch.inference_mode():
        results = {"order": order(mesh.world.control), **sequences(mesh, open_device(device, rank, threads=1), path)}
    out.write_text(json.dumps(results))
    mesh.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])

"""Ranks run what rank 0 runs and go on from its tokens, whatever backend the device has."""

from pathlib import Path
from typing import Any

import pytest

from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.group import rank_order
from radixmesh.services.model_worker.group.rank_order import OrderedInbox
from radixmesh.services.model_worker.models import open_model
from radixmesh.services.model_worker.parallel.mesh import Collectives
from radixmesh.shared.errors import BusError
from radixmesh.shared.messages import StepPlan
from tests.checkpoints import make_checkpoint
from tests.model_worker.group_rank import jobs, run_group
from tests.model_worker.loaded import CPU, load_model, make_runner
from tests.model_worker.plans import PlanDriver

pytestmark = pytest.mark.processes


@pytest.mark.parametrize("backend", ["gloo", "cpu:gloo,cuda:deviceonly"])
def test_every_rank_does_what_rank_0_does(tmp_path: Path, backend: str) -> None:
    make_checkpoint(tmp_path / "model", "llama")
    first, second = run_group("cpu", backend, tmp_path, tmp_path / "model")
    assert first["order"] == second["order"] == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert first["sequences"] == second["sequences"] == first["guessed"] == second["guessed"]
    *said, failure = first["sequences"]
    assert failure == "the model's logits are not finite"
    model = load_model(open_model(tmp_path / "model"))
    runner = make_runner(model, KVCache(model.kv_groups(4), 64, CPU.torch_device))
    alone = jobs()[:2]
    PlanDriver(Engine(runner, max_slots=4, max_model_len=64, page_size=4, eos_token_ids=[])).run(alone)
    assert said == [job.tokens for job in alone]


class Told(Collectives):
    """Rank 1 of two, to which rank 0 says the same again and again."""

    def __init__(self, *told: int) -> None:
        super().__init__(1, 2)
        self.told = told

    def broadcast(self, tensor: Any, source: int = 0) -> Any:
        assert tensor.device.type == "cpu"
        return tensor.new_tensor(self.told)


def test_a_plan_that_only_rank_0_has_gives_the_group_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_order, "PATIENCE_SECONDS", 0.05)
    inbox = OrderedInbox(Told(1, 4))
    inbox.put(StepPlan(epoch=1, seq=0))
    with pytest.raises(BusError, match="plan 4 of epoch 1 reached rank 0 but not rank 1"):
        inbox.next(block=True)

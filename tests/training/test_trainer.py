"""The optimizer, the processes' agreement, and a run from start over a stop to its end."""

import csv
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training import tokenizer
from training.checkpoint import Progress, load_weights
from training.model import SHAPES, Model, Shape
from training.optimizer import Optimizer, Schedule, orthogonal
from training.parallel import Reducer, owned, share
from training.train import flags, work

SMALL = Shape(hidden=64, layers=2, heads=2, kv_heads=1, inner=96, head_dim=32)


@pytest.mark.parametrize("size", [(48, 32), (32, 48), (40, 40)])
def test_an_orthogonal_matrix_keeps_its_directions(size: tuple[int, int]) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(gradient, full_matrices=False)
    turned = left.mT @ orthogonal(gradient) @ right.mT
    assert torch.allclose(turned, turned.diagonal().diag(), atol=1e-4)
    assert (turned.diagonal() > 0.5).all()
    assert (turned.diagonal() < 1.3).all()


def test_the_schedule_warms_up_stays_and_decays() -> None:
    schedule = Schedule(tokens=1000, warmup=100, decay=300)
    assert schedule.scale(0) < schedule.scale(50) < schedule.scale(100) == schedule.scale(699) == 1.0
    assert 1.0 > schedule.scale(800) > schedule.scale(950) > schedule.scale(1000) == pytest.approx(schedule.floor)
    schedule.decay_now(400, 200)
    assert (schedule.tokens, schedule.scale(500)) == (600, pytest.approx(0.51))


def test_two_processes_step_like_one_with_both_their_gradients() -> None:
    """Threads stand for the processes: what they share is the same."""

    def stepped(processes: int) -> Model:
        model = Model(SMALL, seed=2)
        shared = share(model, processes, threading.Barrier(processes))
        gradients = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        shared.control[0] = 1.0

        def one(rank: int) -> None:
            reducer = Reducer(shared, rank, Optimizer(owned(model, rank, processes), 0.02, 0.003))
            for name, gradient in gradients.items():
                shared.gradients[rank][name].copy_(gradient / processes)
            step = reducer.step(loss=6.0 / processes, weight=3.0 / processes, tokens=12 // processes)
            assert (step.loss, step.tokens, step.last) == (2.0, 12, False)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return model

    torch.manual_seed(5)
    one = stepped(1)
    torch.manual_seed(5)
    two = stepped(2)
    for name, parameter in one.named_parameters():
        assert not torch.equal(parameter, Model(SMALL, seed=2).state_dict()[name])
        torch.testing.assert_close(parameter, two.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """`work` sets the process's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_run_learns_and_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", SMALL)
    monkeypatch.setattr("training.heldout.SCANNED", 40)
    tokenizer.save(tokenizer.make(tokenizer.texts(300, seed=9)), tmp_path, max_length=1024)

    def run(*more: str) -> Model:
        common = ("--out", str(tmp_path), "--processes", "1", "--batch", "1024", "--warmup", "2000")
        plan = flags([*common, *more])
        model = Model(SMALL, plan.seed)
        if plan.resume:
            load_weights(tmp_path, model)
        work(0, plan, share(model, 1, threading.Barrier(1)))
        return model

    run("--tokens", "12000")
    stored = Model(SMALL, seed=7)
    load_weights(tmp_path, stored)
    resumed = run("--tokens", "24000", "--resume")
    assert not torch.equal(resumed.state_dict()["model.norm.weight"], stored.state_dict()["model.norm.weight"])

    with (tmp_path / "loss.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["heldout all"]]
    assert len(rows) == 2
    assert float(rows[1]["heldout all"]) < float(rows[0]["heldout all"]) < 7.5
    assert 11_000 < int(rows[0]["tokens"]) < 14_000 < int(rows[1]["tokens"]) < 26_000
    kept = Progress(**torch.load(tmp_path / "optimizer-0.pt", weights_only=True)["progress"])
    assert (kept.steps, kept.tokens) == (int(rows[1]["step"]), int(rows[1]["tokens"]))

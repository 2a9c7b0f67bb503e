"""Trains a bundled model: ``python -m training.train --out DIR --shape tiny --tokens 8_000_000``.

`DIR` gets the tokenizer (if it has none yet), a checkpoint every few minutes, ``loss.csv`` and ``pid``. Create the file
``DIR/decay``, with the number of tokens it shall last, to begin the final decay of the learning rate at once;
``--resume`` goes on from the checkpoint, with more tokens if `--tokens` is larger.
"""

import argparse
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, multiprocessing
from torch.multiprocessing.spawn import spawn

from training import tokenizer
from training.checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint
from training.corpus.conversation import conversations
from training.data import Batch, Encoder, batches, favouring
from training.drill import mixed, repeats, sums
from training.export import TOKENIZER_FILES
from training.heldout import Heldout
from training.losslog import LossLog
from training.model import SHAPES, Model
from training.optimizer import Optimizer, Schedule
from training.parallel import Reducer, Shared, Step, owned, share

TOKENIZER_CONVERSATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The flags."""

    out: Path
    tokenizer: Path | None
    shape: str
    tokens: int
    seed: int
    processes: int
    batch: int
    micro_batches: int
    muon_rate: float
    adam_rate: float
    warmup: int
    decay: int
    repeats: float
    sums: float
    favour: str
    save_every: int
    report_every: int
    resume: bool


def loss_sum(model: Model, batch: Batch) -> Tensor:
    """Sum over the batch's targets of weight times cross-entropy."""
    states = model(batch.ids)[0].flatten(0, 1)[batch.places]
    logits = model.logits(states)
    return (F.cross_entropy(logits, batch.targets, reduction="none") * batch.weights).sum()


class Lead:
    """What only process 0 does: decide the learning rate and the end, report."""

    def __init__(self, plan: Plan, model: Model, encoder: Encoder, progress: Progress) -> None:
        self._plan, self._model, self._progress = plan, model, progress
        self._schedule = Schedule(plan.tokens, plan.warmup, plan.decay)
        self._heldout = Heldout(encoder)
        self._log = LossLog(plan.out / "loss.csv", self._heldout.kinds, progress)
        self._since = time.monotonic() - progress.seconds
        self._per_step = 0

    def control(self) -> tuple[float, float]:
        """The step's learning rate scale, and whether it is the last one."""
        seen, wish = self._progress.tokens, self._plan.out / "decay"
        if wish.exists():
            self._schedule.decay_now(seen, int(wish.read_text()))
            wish.unlink()
        return self._schedule.scale(seen), float(seen + self._per_step >= self._schedule.tokens)

    def report(self, step: Step) -> None:
        self._per_step = step.tokens
        progress = self._progress
        progress.seconds = time.monotonic() - self._since
        if progress.steps % 10 == 0 or step.last:
            rate = progress.tokens / progress.seconds
            print(
                f"step {progress.steps} tokens {progress.tokens} loss {step.loss:.4f} norm {step.norm:.3f} "
                f"scale {self._schedule.scale(progress.tokens):.3f} {rate:.0f} tokens/s",
                flush=True,
            )
        due = progress.steps % self._plan.report_every == 0 or step.last
        self._log.add(progress, step.loss, self._heldout.losses(self._model) if due else None)


def work(rank: int, plan: Plan, shared: Shared) -> None:
    """One process. All take the same steps; see `parallel`."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a child gets when its parent dies; nohup and & have it ignored
    model = shared.model
    optimizer = Optimizer(owned(model, rank, plan.processes), plan.muon_rate, plan.adam_rate)
    progress = load_checkpoint(plan.out, rank, optimizer) if plan.resume else Progress()
    reducer = Reducer(shared, rank, optimizer)
    encoder = Encoder(tokenizer.load(plan.out))
    seed = plan.seed + 1000 * progress.steps + rank  # a resumed run goes on with other text
    spoken = favouring(conversations(seed, "train"), plan.favour, seed)
    text = batches(encoder, spoken, plan.batch, seed)
    drills = [
        (plan.repeats, repeats(plan.batch, seed)),
        (plan.sums, sums(tokenizer.load(plan.out), plan.batch, seed)),
    ]
    stream = mixed(text, drills, seed)
    lead = Lead(plan, model, encoder, progress) if rank == 0 else None
    last = False
    while not last:
        if lead:
            shared.control.copy_(torch.tensor(lead.control()))
        loss = weight = 0.0
        tokens = 0
        for batch in islice(stream, plan.micro_batches):
            part = loss_sum(model, batch)
            torch.autograd.backward(part)
            loss += float(part.detach())
            weight += float(batch.weights.sum())
            tokens += batch.tokens
        step = reducer.step(loss, weight, tokens)
        last = step.last
        progress.steps, progress.tokens = progress.steps + 1, progress.tokens + step.tokens
        if lead:
            lead.report(step)
        if last or progress.steps % plan.save_every == 0:
            save_checkpoint(plan.out, rank, model, optimizer, progress)


def flags(arguments: Sequence[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--tokenizer", type=Path, help="directory of a run or model whose tokenizer to take")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--tokens", type=int, default=8_000_000, help="tokens of text in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--batch", type=int, default=1536, help="tokens of one forward pass, padding included")
    parser.add_argument("--micro-batches", type=int, default=1, help="forward passes of each process per step")
    parser.add_argument("--muon-rate", type=float, default=0.015, help="learning rate of the matrices")
    parser.add_argument("--adam-rate", type=float, default=0.0025, help="learning rate of embeddings and norms")
    parser.add_argument("--warmup", type=int, default=100_000, help="tokens")
    parser.add_argument("--decay", type=int, default=None, help="tokens; default: 35 in 100 of all")
    parser.add_argument("--repeats", type=float, default=0.1, help="share of batches that are random repeats")
    parser.add_argument("--sums", type=float, default=0.1, help="share of batches that are sums of one digit")
    parser.add_argument("--favour", default="", metavar="KIND", help="leave out half of the other conversations")
    parser.add_argument("--save-every", type=int, default=40, help="steps")
    parser.add_argument("--report-every", type=int, default=160, help="steps between held-out losses")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    found = vars(parser.parse_args(arguments))
    if found["decay"] is None:
        found["decay"] = int(found["tokens"] * 0.35)
    return Plan(**found)


def main() -> None:
    plan = flags()
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / "pid").write_text(f"{os.getpid()}\n")
    shape = SHAPES[plan.shape]
    if plan.tokenizer:
        for name in TOKENIZER_FILES:
            shutil.copyfile(plan.tokenizer / name, plan.out / name)
    elif not (plan.out / "tokenizer.json").exists():
        made = tokenizer.make(tokenizer.texts(TOKENIZER_CONVERSATIONS, plan.seed))
        tokenizer.save(made, plan.out, shape.max_positions)
    model = Model(shape, plan.seed)
    if plan.resume:
        load_weights(plan.out, model)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters; {plan}", flush=True)
    multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    barrier = multiprocessing.get_context("spawn").Barrier(plan.processes)
    spawn(work, (plan, share(model, plan.processes, barrier)), plan.processes)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()

"""Data parallelism for a few processes on one machine, one thread each, over shared memory.

Faster than one process with as many threads: at this size a step is many short operations, and threads wait for one
another at the end of each, processes once a step. Every process reads batches of its own; then each sums the gradients
and steps the optimizer for its share of the parameters, which all see at once.

    backward | barrier | own share: sum, squared norm | barrier | own share: clip, step | barrier
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from training.model import Model
from training.optimizer import Optimizer


class Barrier(Protocol):
    def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What the processes have in common; made by the parent."""

    model: Model
    gradients: list[dict[str, Tensor]]
    """One per process."""
    sums: Tensor
    """float64 [processes, 4]: loss, weight, tokens, squared norm of the gradient's share."""
    control: Tensor
    """float64 [2]: process 0's word on the step at hand: what the learning rates are multiplied by; not 0 if it is the
    last one."""
    barrier: Barrier


def share(model: Model, processes: int, barrier: Barrier) -> Shared:
    model.share_memory()
    gradients = [{name: common(torch.zeros_like(p)) for name, p in model.named_parameters()} for _ in range(processes)]
    sums, control = torch.zeros(processes, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return Shared(model, gradients, common(sums), common(control), barrier)


def common(tensor: Tensor) -> Tensor:
    """The same tensor, moved to memory that processes share."""
    return tensor.share_memory_()  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did, over all processes."""

    loss: float
    tokens: int
    norm: float
    """Of the gradient before clipping."""
    last: bool


def owned(model: nn.Module, rank: int, processes: int) -> dict[str, nn.Parameter]:
    """The parameters that process `rank` steps: of every size a fair share."""
    by_size = sorted(model.named_parameters(), key=lambda item: (-item[1].numel(), item[0]))
    return dict(by_size[rank::processes])


class Reducer:
    """One process's side."""

    def __init__(self, shared: Shared, rank: int, optimizer: Optimizer, clip: float = 1.0) -> None:
        self._shared, self._rank, self._clip, self._optimizer = shared, rank, clip, optimizer
        self._owned = owned(shared.model, rank, len(shared.gradients))
        for name, parameter in shared.model.named_parameters():
            parameter.grad = shared.gradients[rank][name]

    def step(self, loss: float, weight: float, tokens: int) -> Step:
        """One step, after backward passes of losses that are sums, not means."""
        shared = self._shared
        shared.sums[self._rank, :3] = torch.tensor([loss, weight, tokens], dtype=torch.float64)
        shared.barrier.wait()
        total = shared.sums[:, :3].sum(0)
        mine = {name: sum_of([g[name] for g in shared.gradients]).div_(float(total[1])) for name in self._owned}
        shared.sums[self._rank, 3] = sum(float(g.square().sum()) for g in mine.values())
        shared.barrier.wait()
        norm = float(shared.sums[:, 3].sum()) ** 0.5
        if norm > self._clip:
            for gradient in mine.values():
                gradient.mul_(self._clip / norm)
        self._optimizer.step(mine, float(shared.control[0]))
        for gradient in shared.gradients[self._rank].values():
            gradient.zero_()
        done = Step(float(total[0] / total[1]), int(total[2]), norm, bool(shared.control[1]))
        shared.barrier.wait()  # only then may anything shared be written again
        return done


def sum_of(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).sum(0)

"""Muon for the matrices inside the layers, AdamW for the embedding and the norms; warm-up, stable, linear decay."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.775, 2.0315
_STEPS = 5
"""Newton-Schulz: applied five times, x -> a x + b x^3 + c x^5 brings singular values from 0.01 on to between 0.7 and
1.2, which is near enough (Muon's own choice).
"""


def orthogonal(gradient: Tensor) -> Tensor:
    """The nearest matrix, about, whose singular values are all 1; of the same shape [out, in]."""
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.mT if tall else gradient
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


class Optimizer:
    """Steps over some of a model's parameters, whose gradients are given."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], muon_rate: float, adam_rate: float, weight_decay: float = 0.02
    ) -> None:
        self._matrices = {n: p for n, p in parameters.items() if p.dim() == 2 and "embed" not in n}
        self._others = {n: p for n, p in parameters.items() if n not in self._matrices}
        self._muon_rate, self._adam_rate, self._decay = muon_rate, adam_rate, weight_decay
        self.state: dict[str, list[Tensor]] = {n: [torch.zeros_like(p)] for n, p in self._matrices.items()}
        self.state |= {n: [torch.zeros_like(p), torch.zeros_like(p)] for n, p in self._others.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: dict[str, Tensor], scale: float) -> None:
        """`scale`: 0 to 1, by which the learning rates are multiplied."""
        self.steps += 1
        for name, parameter in self._matrices.items():
            self._muon(parameter, gradients[name], self.state[name][0], scale)
        for name, parameter in self._others.items():
            self._adam(parameter, gradients[name], self.state[name], scale)

    def _muon(self, parameter: Tensor, gradient: Tensor, momentum: Tensor, scale: float) -> None:
        momentum.lerp_(gradient, 0.05)
        update = orthogonal(gradient.lerp(momentum, 0.95))  # Nesterov
        rate = self._muon_rate * scale
        rows, columns = parameter.shape
        parameter.mul_(1 - rate * self._decay).add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _adam(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], scale: float) -> None:
        first, second = moments
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.02)
        size = (second / (1 - 0.98**self.steps)).sqrt_().add_(1e-10)
        parameter.addcdiv_(first, size, value=-self._adam_rate * scale / (1 - 0.9**self.steps))


@dataclass
class Schedule:
    """Learning rate by tokens seen: warm-up, stable, and a linear decay to `floor` over the last part."""

    tokens: int
    warmup: int
    decay: int
    floor: float = 0.02

    def scale(self, seen: int) -> float:
        start = self.tokens - self.decay
        falling = 1.0 if seen < start else max(self.floor, 1 - (1 - self.floor) * (seen - start) / max(1, self.decay))
        return min(1.0, (seen + 1) / max(1, self.warmup)) * falling

    def decay_now(self, seen: int, tokens: int) -> None:
        """The decay begins at once and takes `tokens`."""
        self.tokens, self.decay = seen + tokens, tokens

"""Rotary position embeddings (RoFormer, arXiv:2104.09864) and their scalings.

Pairs are (i, i + head_dim / 2), as in Hugging Face checkpoints. Angles depend on the position only, so
cosines and sines are tables, as long as the longest sequence so far; the exception is `dynamic`, see below.
"""

import math

import torch
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.rope import RopeConfig

# cos and sin, [T, 1, head_dim] each, in the serving dtype. The first half of `sin` is negated: see
# `apply_rotary`.
CosSin = tuple[Tensor, Tensor]


def apply_rotary(x: Tensor, cos_sin: CosSin) -> Tensor:
    """Rotate x [T, heads, head_dim] by its tokens' angles.

    (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin). Rolling by half a head swaps x1 and x2, so with the sign
    folded into `sin` three small operations do.
    """
    cos, sin = cos_sin
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


# Rows of the tables that are made together: an angle's last bits may depend on how many are.
_BLOCK = 8192
# Rows that are made at first: what most models are trained for, so that their tables never grow.
_AT_FIRST = 4 * _BLOCK


class RotaryEmbedding(nn.Module):
    """Positions -> `CosSin`, from tables [rows, head_dim / 2].

    A config may promise millions of positions that no sequence ever comes to, so the tables grow: `reserve` first.
    """

    def __init__(
        self, config: RopeConfig, head_dim: int, max_length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.config = config
        self.max_length = max_length
        self.frequencies = inverse_frequencies(config, head_dim)
        self.scale = attention_scale(config)
        self.cos = self.sin = torch.empty(0, head_dim // 2, dtype=dtype, device=device)

    def reserve(self, length: int) -> None:
        """Makes room for sequences of `length` tokens, or of `max_length` if that is less."""
        rows = len(self.cos)
        if rows >= min(length, self.max_length):
            return
        wanted = -(-min(max(length, 2 * rows, _AT_FIRST), self.max_length) // _BLOCK) * _BLOCK
        blocks = [self._block(start) for start in range(rows, wanted, _BLOCK)]
        cos = torch.cat([self.cos, *(cos for cos, _ in blocks)])[: self.max_length]
        sin = torch.cat([self.sin, *(sin for _, sin in blocks)])[: self.max_length]
        self.cos, self.sin = cos, sin  # both or, without memory, none

    def _block(self, start: int) -> tuple[Tensor, Tensor]:
        angles = torch.outer(torch.arange(start, start + _BLOCK).float(), self.frequencies)
        return (angles.cos() * self.scale).to(self.cos), (angles.sin() * self.scale).to(self.sin)

    def forward(self, positions: Tensor, rope_length: Tensor | None) -> CosSin:
        """positions int64 [T]; `rope_length` is not read."""
        return _full_heads(self.cos[positions], self.sin[positions])


class DynamicRotaryEmbedding(nn.Module):
    """Dynamic NTK scaling: past the trained length L, the base grows with the sequence's length n,

        base(n) = theta * (factor * n / L - (factor - 1)) ** (head_dim / (head_dim - 2)),  n = max(n, L)

    transformers turns every token of one forward call by base(length of the sequence at that call) and
    never turns a cached key again. So in `generate`, a prompt of P tokens is turned by base(P) and the
    token at position p >= P by base(p + 1): every token by base(max(P, p + 1)). (There, a model object also
    remembers the longest sequence of earlier calls; that is not reproduced: a result must not depend on
    what was served before.)

    That rule needs nothing but P, and P only where P > L: give it as `rope_length`. Then chunks, batches and
    decodes equal `generate` exactly. But a key at position p < P then depends on P, so pages of prompts
    with P > L can only be shared between prompts of one length: key the prefix cache by max(P, L) too.
    Without `rope_length` every token takes base(p + 1): what transformers makes of tokens fed one by one,
    equal to `generate` for every prompt of at most L tokens, and safe to share by prefix.
    """

    def __init__(self, config: RopeConfig, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.config = config
        self.power = head_dim / (head_dim - 2)
        self.dtype = dtype
        self.exponents = (torch.arange(0, head_dim, 2).float() / head_dim).to(device)

    def reserve(self, length: int) -> None:
        """Nothing to make room in."""

    def forward(self, positions: Tensor, rope_length: Tensor | None) -> CosSin:
        """positions int64 [T], rope_length int64 [T] or None."""
        length = positions + 1
        if rope_length is not None:
            length = torch.maximum(length, rope_length)
        factor, trained = self.config.factor, self.config.original_length
        growth = factor * length.clamp(min=trained) / trained - (factor - 1)
        base = self.config.theta * growth**self.power
        angles = positions.unsqueeze(-1).float() / base.unsqueeze(-1) ** self.exponents
        return _full_heads(angles.cos().to(self.dtype), angles.sin().to(self.dtype))


def make_rotary(
    config: RopeConfig, head_dim: int, max_length: int, dtype: torch.dtype, device: torch.device
) -> RotaryEmbedding | DynamicRotaryEmbedding:
    if config.type == "dynamic":
        return DynamicRotaryEmbedding(config, head_dim, dtype, device)
    return RotaryEmbedding(config, head_dim, max_length, dtype, device)


def _full_heads(cos: Tensor, sin: Tensor) -> CosSin:
    """Half-head tables [T, head_dim / 2] to what `apply_rotary` takes."""
    return torch.cat((cos, cos), -1).unsqueeze(1), torch.cat((-sin, sin), -1).unsqueeze(1)


def inverse_frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position, float32 [head_dim / 2], of every type but `dynamic`."""
    plain = 1.0 / config.theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    if config.type == "linear":
        return plain / config.factor
    if config.type == "llama3":
        return _llama3(config, plain)
    if config.type == "yarn":
        return _yarn(config, plain, head_dim)
    return plain


def attention_scale(config: RopeConfig) -> float:
    """What cos and sin are multiplied by: 1, but for YaRN's temperature (arXiv:2309.00071, section 3.4)."""
    if config.type != "yarn":
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(config.factor) + 1.0 if config.factor > 1 else 1.0

    if config.mscale and config.mscale_all_dim:
        return temperature(config.mscale) / temperature(config.mscale_all_dim)
    return temperature(1.0)


def _llama3(config: RopeConfig, plain: Tensor) -> Tensor:
    """Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, those between blended."""
    turns = config.original_length * plain / (2 * math.pi)  # full turns over the trained length
    low, high = config.low_freq_factor, config.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - keep) * plain / config.factor + keep * plain


def _yarn(config: RopeConfig, plain: Tensor, head_dim: int) -> Tensor:
    """YaRN's "NTK by parts" (arXiv:2309.00071, section 3.2), the ramp being linear in the dimension."""

    def dimension(turns: float) -> float:
        """The (fractional) pair that makes `turns` full turns over the trained length."""
        return head_dim * math.log(config.original_length / (turns * 2 * math.pi)) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low if high != low else 0.001  # a step, not a division by zero
    slowed = ((torch.arange(head_dim // 2).float() - low) / width).clamp(0, 1)
    return slowed * plain / config.factor + (1 - slowed) * plain

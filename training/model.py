"""The model, Qwen3's architecture with tied embeddings, small enough to be trained on a CPU.

Names and shapes of the parameters are those of Hugging Face's `Qwen3ForCausalLM`, so `state_dict()` is a checkpoint.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model; `inner` is the width inside the MLP."""

    hidden: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    inner: int = 640
    head_dim: int = 64
    vocab: int = 4096
    max_positions: int = 2048
    rope_theta: float = 10_000.0
    eps: float = 1e-6

    def hf_config(self, end_ids: list[int], pad_id: int) -> dict[str, Any]:
        """Content of ``config.json``."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_theta,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "use_sliding_window": False,
            "bos_token_id": None,
            "eos_token_id": end_ids,
            "pad_token_id": pad_id,
            "dtype": "bfloat16",
        }


TINY = Shape()
DRAFT = Shape(hidden=128, layers=4, heads=2, kv_heads=1, inner=384)
SHAPES = {"tiny": TINY, "draft": DRAFT}

Past = tuple[Tensor, Tensor]
"""Rotated keys and values of one layer, each [B, kv_heads, T, head_dim]."""


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, wide, bias=False)
        self.k_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(wide, shape.hidden, bias=False)
        self.q_norm = RMSNorm(shape.head_dim, shape.eps)
        self.k_norm = RMSNorm(shape.head_dim, shape.eps)

    def forward(self, x: Tensor, rotary: Tensor, past: Past | None, mask: Tensor | None) -> tuple[Tensor, Past]:
        b, t, _ = x.shape
        heads = (b, t, -1, self.shape.head_dim)
        q = rotate(self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2), rotary)
        k = rotate(self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2), rotary)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        groups = self.shape.heads // self.shape.kv_heads
        wide_k, wide_v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(q, wide_k, wide_v, attn_mask=mask, is_causal=mask is None)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1)), (k, v)


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.eps)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor, rotary: Tensor, past: Past | None, mask: Tensor | None) -> tuple[Tensor, Past]:
        attended, present = self.self_attn(self.input_layernorm(x), rotary, past, mask)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.eps)


class Model(nn.Module):
    """A causal language model; the output matrix is the embedding."""

    rotary: Tensor

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        self.register_buffer("rotary", rotary_table(shape), persistent=False)
        self._init(torch.Generator().manual_seed(seed))

    def _init(self, random: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)  # every block starts as the identity
            else:
                std = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                nn.init.normal_(parameter, 0.0, std, generator=random)

    def forward(
        self, ids: Tensor, past: list[Past] | None = None, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Past]]:
        """Normed states [B, T, hidden] and the cache, of ids [B, T].

        Without `past` all rows start at position 0 and attend causally. With it, give `positions` [B, T] and a
        boolean `mask` [B, 1, T, past + T], true where attended.
        """
        table = self.rotary[: ids.shape[1]] if positions is None else self.rotary[positions][:, None]
        x = self.model.embed_tokens(ids)
        present = []
        for index, layer in enumerate(self.model.layers):
            x, kept = layer(x, table, past[index] if past else None, mask)
            present.append(kept)
        return self.model.norm(x), present

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.model.embed_tokens.weight)


def rotary_table(shape: Shape) -> Tensor:
    """Cosines and sines by position, [max_positions, 2, head_dim / 2]."""
    frequencies = shape.rope_theta ** -(torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(shape.max_positions).float(), frequencies)
    return torch.stack((angles.cos(), angles.sin()), 1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns pairs (i, i + head_dim / 2) of x [B, heads, T, head_dim] by `table` [..., T, 2, head_dim / 2]."""
    cos, sin = table[..., 0, :], table[..., 1, :]
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)

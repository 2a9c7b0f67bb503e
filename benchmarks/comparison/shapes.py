"""The shapes of the models that are measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

EOS = 2
"""The token id."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder-only model; embeddings and output matrix are one tensor."""

    name: str
    family: str
    """llama or qwen3; the latter normalizes queries and keys per head."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int = 32_000
    positions: int = 4096
    rope_theta: float = 1e6

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names as in Hugging Face checkpoints, and sizes: [out, in] for matrices."""
        yield "model.embed_tokens.weight", (self.vocab, self.hidden)
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            yield at + "input_layernorm.weight", (self.hidden,)
            yield at + "self_attn.q_proj.weight", (query, self.hidden)
            yield at + "self_attn.k_proj.weight", (key, self.hidden)
            yield at + "self_attn.v_proj.weight", (key, self.hidden)
            yield at + "self_attn.o_proj.weight", (self.hidden, query)
            if self.family == "qwen3":
                yield at + "self_attn.q_norm.weight", (self.head_dim,)
                yield at + "self_attn.k_norm.weight", (self.head_dim,)
            yield at + "post_attention_layernorm.weight", (self.hidden,)
            yield at + "mlp.gate_proj.weight", (self.intermediate, self.hidden)
            yield at + "mlp.up_proj.weight", (self.intermediate, self.hidden)
            yield at + "mlp.down_proj.weight", (self.hidden, self.intermediate)
        yield "model.norm.weight", (self.hidden,)

    @property
    def parameters(self) -> int:
        total = 0
        for _, size in self.tensors():
            total += size[0] * (size[1] if len(size) == 2 else 1)
        return total

    @property
    def weight_bytes(self) -> int:
        """In bfloat16. A decode step reads all of them: the embeddings as the output matrix."""
        return 2 * self.parameters

    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            "architectures": ["Qwen3ForCausalLM" if self.family == "qwen3" else "LlamaForCausalLM"],
            "model_type": self.family,
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.positions,
            "rms_norm_eps": 1e-6,
            "rope_theta": self.rope_theta,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": EOS,
            "torch_dtype": "bfloat16",
        }


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("qwen3-0.6b", "qwen3", hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, intermediate=3072),
        Shape("llama-100m", "llama", hidden=768, layers=12, heads=12, kv_heads=4, head_dim=64, intermediate=2048),
        # For trying the tools themselves.
        Shape("llama-tiny", "llama", hidden=128, layers=2, heads=4, kv_heads=2, head_dim=32, intermediate=256),
    )
}

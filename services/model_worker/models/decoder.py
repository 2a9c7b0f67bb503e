"""What Llama, Mistral and the dense Qwens share: a pre-norm decoder with rotary, grouped-query attention.

    ids -> embed_tokens -> [ norm -> attention -> + -> norm -> mlp -> + ] x layers -> norm -> lm_head ->
    logits

Module names follow the Hugging Face checkpoints (`model.layers.0.self_attn.o_proj`), but for the fused
`qkv_proj`, `gate_up_proj` and `qk_norm`, which know the names of their parts. A family says what differs
in its `DecoderConfig`; a layer of another kind it makes itself.
"""

from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.kv_cache import KVCache, KVGroupSpec
from radixmesh.services.model_worker.layers.attention import Attention
from radixmesh.services.model_worker.layers.linear import Build, QKVLinear, RowLinear, kv_head_share
from radixmesh.services.model_worker.layers.mlp import GatedMLP
from radixmesh.services.model_worker.layers.norm import QKNorm, RMSNorm
from radixmesh.services.model_worker.layers.rotary import apply_rotary, make_rotary
from radixmesh.services.model_worker.layers.vocab import LMHead, VocabEmbedding
from radixmesh.services.model_worker.models.config import DecoderConfig


class DecoderAttention(nn.Module):
    """q, k, v projections, optional head norms, rotation, attention, output projection."""

    def __init__(self, config: DecoderConfig, layer: int, build: Build) -> None:
        super().__init__()
        self.qkv_proj = QKVLinear(
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.qkv_bias,
            build,
        )
        width = config.num_heads * config.head_dim
        self.o_proj = RowLinear(width, config.hidden_size, config.output_bias, build)
        self.heads, kv_heads = self.qkv_proj.num_heads, self.qkv_proj.num_kv_heads
        self.rotated = self.heads + kv_heads
        self.qk_norm = (
            QKNorm(self.heads, kv_heads, config.head_dim, config.rms_norm_eps, build) if config.head_norm else None
        )
        self.head_dim = config.head_dim
        self.attend = Attention(layer, config.head_dim, config.windows[layer], build)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        """[T, hidden] -> [T, hidden]."""
        heads: Tensor = self.qkv_proj(x, context).view(x.shape[0], -1, self.head_dim)
        qk, v = heads[:, : self.rotated], heads[:, self.rotated :]
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)
        qk = apply_rotary(qk, context.positions)
        attended: Tensor = self.attend(qk[:, : self.heads], qk[:, self.heads :], v, context)
        out: Tensor = self.o_proj(attended.reshape(x.shape[0], -1), context)
        return out


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and around a residual."""

    def __init__(self, config: DecoderConfig, layer: int, build: Build) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, build)
        self.self_attn = DecoderAttention(config, layer, build)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, build)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.mlp_bias, build)

    def forward(self, x: Tensor, residual: Tensor | None, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """(x, residual) -> the same, each [T, hidden]; their sum is the layer's output."""
        if residual is None:
            normed, residual = self.input_layernorm(x), x
        else:
            normed, residual = self.input_layernorm.add(x, residual)
        attended = self.self_attn(normed, context)
        normed, residual = self.post_attention_layernorm.add(attended, residual)
        return self.mlp(normed, context), residual


class Decoder(nn.Module):
    """The stack below the head."""

    def __init__(self, config: DecoderConfig, layers: list[nn.Module], max_length: int, build: Build) -> None:
        super().__init__()
        self.embed_tokens = VocabEmbedding(config.vocab_size, config.hidden_size, build)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, build)
        self.rotary = make_rotary(config.rope, config.head_dim, max_length, build.dtype, build.device)


class CausalLM(nn.Module):
    """A language model of one rank. Call under `torch.inference_mode()`."""

    model_type = ""
    """What `config.json` calls the family where it names no class."""

    def __init__(self, config: DecoderConfig, build: Build, max_length: int | None = None) -> None:
        """`max_length`: the longest sequence ever to be served, at most (and by default) the config's."""
        super().__init__()
        self.config = config
        self.dtype = build.dtype
        self.device = build.device
        self.mesh = build.mesh
        self.attention = build.attention
        self.max_length = min(max_length or config.max_length, config.max_length)
        layers = [self.make_layer(config, layer, build) for layer in range(config.num_layers)]
        self.model = Decoder(config, layers, self.max_length, build)
        tied = self.model.embed_tokens if config.tie_word_embeddings else None
        self.lm_head = LMHead(config.vocab_size, config.hidden_size, build, tied)

    @classmethod
    def read_config(cls, fields: Fields) -> DecoderConfig:
        """What the family makes of a `config.json`. Raises `ModelLoadError`, naming the field at fault."""
        raise NotImplementedError

    @staticmethod
    def make_layer(config: DecoderConfig, layer: int, build: Build) -> nn.Module:
        """Layer number `layer`, which is called as a `DecoderLayer` is."""
        return DecoderLayer(config, layer, build)

    def kv_groups(self, page_size: int) -> list[KVGroupSpec]:
        """The KV pools this rank's slice of the model needs: layers without a window first, then by window.

        One that no sequence outgrows is none.
        """
        config = self.config
        heads = kv_head_share(config.num_kv_heads, self.mesh.tp)[1]
        windows = [window if window and window < self.max_length else None for window in config.windows]
        return [
            KVGroupSpec(
                tuple(layer for layer, its in enumerate(windows) if its == window),
                heads,
                config.head_dim,
                page_size,
                self.dtype,
                window,
            )
            for window in sorted(set(windows), key=lambda window: window or 0)
        ]

    def begin(self, batch: ForwardBatch, kv: KVCache) -> ForwardContext:
        """What the layers share over `batch`."""
        rotary = self.model.rotary
        rotary.reserve(int(batch.host_context_len.max()))
        return ForwardContext(batch, kv, self.attention.plan(batch, kv), rotary(batch.positions, batch.rope_length))

    def hidden_states(self, context: ForwardContext, rows: Tensor) -> Tensor:
        """Run the layers, writing the pool. Returns the normed states [R, hidden] of tokens `rows` int64 [R]."""
        decoder = self.model
        x: Tensor = decoder.embed_tokens(context.batch.token_ids, context)
        residual: Tensor | None = None
        for layer in decoder.layers:
            x, residual = layer(x, residual, context)
        picked = x[rows] if residual is None else x[rows] + residual[rows]
        normed: Tensor = decoder.norm(picked)
        return normed

    def logits(self, hidden: Tensor, context: ForwardContext) -> Tensor:
        """[R, hidden] -> float32 [R, vocab_size], the same on every rank."""
        logits: Tensor = self.lm_head(hidden, context)
        return logits

    def forward(self, batch: ForwardBatch, kv: KVCache) -> Tensor:
        """Logits of `batch.logit_rows`: float32 [R, vocab_size], the same bits on every rank."""
        context = self.begin(batch, kv)
        return self.logits(self.hidden_states(context, batch.logit_rows), context)

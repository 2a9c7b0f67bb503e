"""A whole decoder in one call per step, in place of the torch modules.

`FusedDecoder` takes a loaded model's weights one by one, packs each and frees the original: there never are two copies.
The model cannot run by itself afterwards.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.devices.cpu.arena import Arena
from radixmesh.services.model_worker.devices.cpu.layers import group_pages
from radixmesh.services.model_worker.devices.cpu.native import (
    KINDS,
    Batch,
    Group,
    Layer,
    Model,
    Native,
    Weight,
    check,
    native,
    pointer,
)
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight
from radixmesh.services.model_worker.devices.device import Quantization
from radixmesh.services.model_worker.devices.torch.linear import TorchLinear
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.description import LayerDescription, ModelDescription
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.layers.linear import Linear
from radixmesh.services.model_worker.layers.rotary import DynamicRotaryEmbedding, make_rotary
from radixmesh.services.model_worker.models.decoder import CausalLM, DecoderLayer
from radixmesh.services.model_worker.models.describe import describe

_MAX_HEAD_DIM = 512


def unfusable(model: ModelDescription) -> str:
    """Why a model cannot be fused, in a few words; empty if it can."""
    if model.all_own:
        return f"{model.architecture} computes in its own way: {', '.join(model.all_own)}"
    if model.ranks > 1:
        return "the model is split over ranks"
    if model.dtype not in KINDS:
        return f"weights are {model.dtype}"
    if not model.layers or not model.rotary:
        return "it is no decoder with rotary embeddings"
    alike = {_alike(layer) for layer in model.layers}
    if len(alike) > 1 or model.layers[0].norm_eps != model.norm_eps:
        return "its layers are not of one shape"
    attention = model.layers[0].attention
    if attention is None or model.layers[0].mlp is None:
        return "its layers are not described"
    return f"heads are {attention.head_dim} wide" if attention.head_dim > _MAX_HEAD_DIM else ""


def _alike(layer: LayerDescription) -> LayerDescription:
    """What the library takes once for all layers."""
    attention, mlp = layer.attention, layer.mlp
    return replace(
        layer,
        attention=attention and replace(attention, window=None, qkv_bias=False, output_bias=False, head_norm=False),
        mlp=mlp and replace(mlp, bias=False),
    )


class FusedDecoder:
    """Runs a model's steps over one KV pool. Holds both alive."""

    def __init__(
        self,
        model: CausalLM,
        kv: KVCache,
        quantization: Quantization = "",
        int16: bool | None = None,
        deferred: Deferred | None = None,
    ) -> None:
        """Takes `model`'s weights.

        int16: hold bfloat16 as integers (see `Format`); by default where that is faster.
        deferred: what of them has not been loaded yet.

        Raises ValueError if the model is `unfusable`.
        """
        library, described = native(), describe(model)
        if (why := unfusable(described)) or library is None:
            raise ValueError(f"the model cannot be fused: {why or 'the kernels are not to be had'}")
        if not all(type(module.method) is TorchLinear for module in model.modules() if isinstance(module, Linear)):
            raise ValueError("the model cannot be fused: its linear layers are packed already")
        self.native: Native = library
        self.config = config = model.config
        self.described = described
        self.dtype, self.device = model.dtype, model.device
        self.kv = kv
        for pool in (*kv.keys, *kv.values):
            library.library.rm_huge_pages(pool.data_ptr(), pool.nbytes)
        self._int16 = library.prefers_int16 if int16 is None else int16
        self._deferred = deferred or Deferred()
        self._arena = Arena()
        self._keep: list[object] = []  # whatever the structs point to
        rope = model.model.rotary.config  # which a family may have made otherwise than `config.rope` says
        self.rotary = make_rotary(rope, config.head_dim, model.max_length, torch.float32, torch.device("cpu"))
        self.rotary.reserve(1)  # at the start, and not in the first step
        with torch.inference_mode():
            self._model = self._take(model, quantization)
        self._arena.finish()

    def _take(self, model: CausalLM, quantization: Quantization) -> Model:
        config, decoder, kv = model.config, model.model, self.kv
        first = self.described.layers[0]
        attention, mlp = first.attention, first.mlp
        assert attention is not None and mlp is not None  # noqa: S101, PT018  else it were unfusable
        form = Format.of(quantization, dtype=model.dtype, int16=self._int16)
        layers = (Layer * len(decoder.layers))()
        for index, layer in enumerate(cast(list[DecoderLayer], list(decoder.layers))):
            self._fill(layers[index], layer, form)
            layers[index].keys, layers[index].values = pointer(kv.keys[index]), pointer(kv.values[index])
            layers[index].window, layers[index].group = layer.self_attn.attend.window or 0, kv.group_of[index]
        tied = model.lm_head.weight_is_shared
        head = self._pack(model.lm_head, Format.of(quantization, True, model.dtype, self._int16))
        self._deferred.settle()  # an embedding that is not tied
        embedding: Tensor | None = None if tied else decoder.embed_tokens.weight.data
        if tied:
            _free(decoder.embed_tokens)
        groups = (Group * len(kv.pools))(*(Group(pool.num_pages, pool.spec.window or 0) for pool in kv.pools))
        spec = kv.pools[0].spec
        self._keep += [layers, head, embedding, groups]
        return Model(
            layers,
            ctypes.pointer(head) if tied else None,
            None if embedding is None else pointer(embedding),
            self._floats(decoder.norm.weight),
            head,
            groups,
            len(groups),
            KINDS[model.dtype],
            KINDS[spec.dtype],
            len(layers),
            config.hidden_size,
            attention.heads,
            attention.kv_heads,
            attention.head_dim,
            mlp.intermediate,
            config.vocab_size,
            spec.page_size,
            self.described.norm_eps,
            attention.scale,
        )

    def _fill(self, to: Layer, layer: DecoderLayer, form: Format) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        to.qkv = self._pack(attention.qkv_proj, form)
        to.o = self._pack(attention.o_proj, form)
        to.gate_up = self._pack(mlp.gate_up_proj, form, parts=2)
        to.down = self._pack(mlp.down_proj, form)
        to.input_norm = self._floats(layer.input_layernorm.weight)
        to.post_norm = self._floats(layer.post_attention_layernorm.weight)
        if attention.qk_norm is not None:  # one vector for all heads of a kind, repeated
            to.q_norm = self._floats(attention.qk_norm.weight[0])
            to.k_norm = self._floats(attention.qk_norm.weight[attention.heads])

    def _pack(self, linear: Linear, form: Format, parts: int = 1) -> Weight:
        """Pack and free; `parts` matrices that are stored one above the other get alternating panels."""
        biases: Sequence[Tensor] | None = None if linear.bias is None else linear.bias.chunk(parts)
        blocks = self._deferred.take(linear.weight)
        matrices: list[Tensor | list[Tensor]] = [blocks] if parts == 1 else [*_split(blocks, parts)]
        packed = PackedWeight(self.native, matrices, biases, form, self._arena)
        self._keep.append(packed)
        _free(linear)
        return packed.struct

    def _floats(self, weight: Tensor) -> int:
        values = weight.detach().float().contiguous()
        self._keep.append(values)
        return pointer(values)

    @property
    def weight_bytes(self) -> int:
        """Bytes a decode step reads of the packed weights."""
        return sum(item.nbytes for item in self._keep if isinstance(item, PackedWeight))

    def begin(self, batch: ForwardBatch) -> ForwardContext:
        """Nothing but the batch is needed."""
        return ForwardContext(batch, self.kv)

    def hidden_states(self, context: ForwardContext, rows: Tensor) -> Tensor:
        """Run the layers, writing the pool. Returns the normed states float32 [R, hidden] of tokens `rows` int64 [R].

        Raises IndexError for a token id, position, page or row that does not exist.
        """
        batch = context.batch
        out = torch.empty(len(rows), self.config.hidden_size)
        cos, sin, rope_rows = self._angles(batch)
        rows = rows.contiguous()
        pages, _tables = group_pages(batch)
        step = Batch(
            pointer(batch.token_ids),
            pointer(batch.positions),
            pointer(batch.query_start),
            pointer(batch.context_len),
            pages,
            pointer(rows),
            pointer(cos),
            pointer(sin),
            rope_rows,
            len(batch.token_ids),
            len(batch.context_len),
            len(rows),
        )
        check(self.native.library.rm_forward(ctypes.byref(self._model), ctypes.byref(step), pointer(out)))
        return out

    def _angles(self, batch: ForwardBatch) -> tuple[Tensor, Tensor, int]:
        """cos, sin, and how many positions they are tables of; 0: a row per token."""
        rotary = self.rotary
        if isinstance(rotary, DynamicRotaryEmbedding):
            cos, sin = rotary(batch.positions, batch.rope_length)
            half = self.config.head_dim // 2
            return cos[:, 0, :half].contiguous(), sin[:, 0, half:].contiguous(), 0
        rotary.reserve(int(batch.host_context_len.max()))
        return rotary.cos, rotary.sin, len(rotary.cos)

    def logits(self, hidden: Tensor, context: ForwardContext) -> Tensor:
        """float32 [R, hidden] -> float32 [R, vocab_size]."""
        out = torch.empty(len(hidden), self.config.vocab_size)
        check(
            self.native.library.rm_linear(
                ctypes.byref(self._model.head), pointer(hidden), len(hidden), pointer(out), self.config.vocab_size
            )
        )
        return out

    def __call__(self, batch: ForwardBatch) -> Tensor:
        """Logits of `batch.logit_rows`: float32 [R, vocab_size]."""
        context = self.begin(batch)
        return self.logits(self.hidden_states(context, batch.logit_rows), context)


def _split(blocks: list[Tensor], parts: int) -> Sequence[Tensor]:
    """Rows that come in `blocks`, as `parts` matrices of equal height."""
    if len(blocks) == parts and len({block.shape for block in blocks}) == 1:
        return blocks
    return torch.cat(blocks).chunk(parts) if len(blocks) > 1 else blocks[0].chunk(parts)


def _free(module: nn.Module) -> None:
    """Gives a module's parameters back; they are packed by now."""
    for parameter in module.parameters(recurse=False):
        parameter.data = torch.empty(0, dtype=parameter.dtype)

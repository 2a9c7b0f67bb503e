"""A whole decoder in one call per step, in place of the torch modules.

`FusedDecoder` takes a loaded model's weights one by one, packs each and frees the original: there never are two copies.
The model cannot run by itself afterwards.
"""

import ctypes
from collections.abc import Sequence
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
from radixmesh.services.model_worker.devices.cpu.packed import Format, PackedWeight, Quantization
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.layers.linear import Linear, PlainLinear
from radixmesh.services.model_worker.layers.rotary import DynamicRotaryEmbedding, make_rotary
from radixmesh.services.model_worker.models.decoder import CausalLM, DecoderLayer

_MAX_HEAD_DIM = 512


def supported(model: CausalLM) -> str:
    """Why `model` cannot be fused, in a few words; empty if it can."""
    if model.device.type != "cpu":
        return f"the model is on {model.device.type}"
    if model.group.size > 1:
        return "the model is split over ranks"
    if model.dtype not in KINDS:
        return f"weights are {model.dtype}"
    if model.config.head_dim > _MAX_HEAD_DIM:
        return f"heads are {model.config.head_dim} wide"
    if not all(type(module.method) is PlainLinear for module in model.modules() if isinstance(module, Linear)):
        return "linear layers are packed already"
    return "" if native() is not None else "the kernels cannot be built"


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

        Raises ValueError if the model is not `supported`.
        """
        library = native()
        if (why := supported(model)) or library is None:
            raise ValueError(f"the model cannot be fused: {why}")
        self.native: Native = library
        self.config = model.config
        self.group = model.group
        self.dtype, self.device = model.dtype, model.device
        self.kv = kv
        for pool in (*kv.keys, *kv.values):
            library.library.rm_huge_pages(pool.data_ptr(), pool.nbytes)
        self._int16 = library.prefers_int16 if int16 is None else int16
        self._deferred = deferred or Deferred()
        self._arena = Arena()
        self._keep: list[object] = []  # whatever the structs point to
        config = model.config
        self.rotary = make_rotary(config.rope, config.head_dim, model.max_length, torch.float32, torch.device("cpu"))
        self.rotary.reserve(1)  # at the start, and not in the first step
        with torch.inference_mode():
            self._model = self._take(model, quantization)
        self._arena.finish()

    def _take(self, model: CausalLM, quantization: Quantization) -> Model:
        config, decoder, kv = model.config, model.model, self.kv
        form = Format.of(quantization, dtype=model.dtype, int16=self._int16)
        layers = (Layer * config.num_layers)()
        for index, layer in enumerate(cast(list[DecoderLayer], list(decoder.layers))):
            self._fill(layers[index], layer, form)
            layers[index].keys, layers[index].values = pointer(kv.keys[index]), pointer(kv.values[index])
            layers[index].window, layers[index].group = config.windows[index] or 0, kv.group_of[index]
        tied = model.lm_head.tied
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
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
            spec.page_size,
            config.rms_norm_eps,
            config.head_dim**-0.5,
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

    def hidden_states(self, batch: ForwardBatch, rows: Tensor) -> Tensor:
        """Run the layers, writing the pool. Returns the normed states float32 [R, hidden] of tokens `rows` int64 [R].

        Raises IndexError for a token id, position, page or row that does not exist.
        """
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

    def logits(self, hidden: Tensor) -> Tensor:
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
        return self.logits(self.hidden_states(batch, batch.logit_rows))


def _split(blocks: list[Tensor], parts: int) -> Sequence[Tensor]:
    """Rows that come in `blocks`, as `parts` matrices of equal height."""
    if len(blocks) == parts and len({block.shape for block in blocks}) == 1:
        return blocks
    return torch.cat(blocks).chunk(parts) if len(blocks) > 1 else blocks[0].chunk(parts)


def _free(module: nn.Module) -> None:
    """Gives a module's parameters back; they are packed by now."""
    for parameter in module.parameters(recurse=False):
        parameter.data = torch.empty(0, dtype=parameter.dtype)

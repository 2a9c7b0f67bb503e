"""How a model's steps are run: its torch modules, or the CPU kernels, whole or one by one.

fused     one C++ call a step; dense decoders on one rank of a CPU
native    torch modules over packed weights and native attention; several ranks on a CPU
torch     plain torch: any device, and a CPU without a compiler
"""

import logging
from typing import Protocol

from torch import Tensor

from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder, supported
from radixmesh.services.model_worker.devices.cpu.packed import Quantization
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.decoder import CausalLM

log = logging.getLogger(__name__)


class Executor(Protocol):
    """A model over one KV pool."""

    def hidden_states(self, batch: ForwardBatch, rows: Tensor) -> Tensor:
        """Runs the layers, writing the pool. Returns the normed last states [R, hidden] of tokens `rows` int64 [R]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, hidden] to float32 [R, vocab_size]."""
        ...


class TorchExecutor:
    """The model's own modules."""

    def __init__(self, model: CausalLM, kv: KVCache) -> None:
        self._model = model
        self._kv = kv

    def hidden_states(self, batch: ForwardBatch, rows: Tensor) -> Tensor:
        return self._model.hidden_states(batch, self._kv, rows)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden)


def make_executor(
    model: CausalLM,
    kv: KVCache,
    quantization: Quantization = "",
    *,
    exact: bool = False,
    deferred: Deferred | None = None,
) -> Executor:
    """The fastest that can run `model`; takes its weights over.

    Args:
        exact: keep bfloat16 weights as they are. Otherwise a CPU that multiplies integers faster stores them as
            12-bit integers with a scale per 128, which moves them by a quarter of what rounding to bfloat16 did.
        deferred: what of the model's matrices has not been loaded yet.
    """
    why = supported(model)
    if not why:
        log.info("steps run in the fused CPU kernels%s", f", weights in {quantization}" if quantization else "")
        return FusedDecoder(model, kv, quantization, int16=False if exact else None, deferred=deferred)
    log.info("steps run in torch (%s)", why)
    if deferred is not None:
        deferred.settle()
    return TorchExecutor(model, kv)

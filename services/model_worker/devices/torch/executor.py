"""Steps layer by layer."""

from torch import Tensor

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.decoder import CausalLM


class TorchExecutor:
    """An `Executor`: the model's own modules."""

    def __init__(self, model: CausalLM, kv: KVCache) -> None:
        self._model = model
        self._kv = kv

    def begin(self, batch: ForwardBatch) -> ForwardContext:
        return self._model.begin(batch, self._kv)

    def hidden_states(self, context: ForwardContext, rows: Tensor) -> Tensor:
        return self._model.hidden_states(context, rows)

    def logits(self, hidden: Tensor, context: ForwardContext) -> Tensor:
        return self._model.logits(hidden, context)

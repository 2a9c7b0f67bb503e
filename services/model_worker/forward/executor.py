"""How a model's steps are run."""

from typing import Protocol

from torch import Tensor

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.context import ForwardContext


class Executor(Protocol):
    """A model over one KV pool."""

    def begin(self, batch: ForwardBatch) -> ForwardContext:
        """What the step's layers will share."""
        ...

    def hidden_states(self, context: ForwardContext, rows: Tensor) -> Tensor:
        """Runs the layers, writing the pool. Returns the normed last states [R, hidden] of tokens `rows` int64 [R]."""
        ...

    def logits(self, hidden: Tensor, context: ForwardContext) -> Tensor:
        """[R, hidden] to float32 [R, vocab_size]."""
        ...

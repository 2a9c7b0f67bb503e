"""What a model asks of an attention implementation."""

from typing import Any, Protocol

from torch import Tensor

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache


class AttentionBackend(Protocol):
    """Causal paged attention over a mixed batch of prompt chunks and decodes."""

    def plan(self, batch: ForwardBatch, kv: KVCache) -> Any:
        """What all layers of one step share, or those of one group: indices, masks, workspaces. Opaque to others."""
        ...

    def forward(
        self,
        plan: Any,
        kv: KVCache,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Write the step's k and v into `kv`, then attend.

        q [T, heads, head_dim], k and v [T, kv_heads, head_dim], possibly strided views. Query head h reads
        kv head h // (heads // kv_heads). `window`: how many keys a query sees, its own included; None: all
        before it. Returns [T, heads, head_dim]. NaN in one sequence must not reach another, and what lies in pages
        behind a window is another's, perhaps.
        """
        ...

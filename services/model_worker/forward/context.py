"""What all layers of one forward pass share."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.kv_cache import KVCache


@dataclass(frozen=True, slots=True, eq=False)
class ForwardContext:
    """Made once per step, and handed to every layer that has weights or heads."""

    batch: ForwardBatch
    kv: KVCache
    plan: Any = None
    """The attention backend's own, see `AttentionBackend.plan`."""
    positions: Any = None
    """What the model's rotary embedding made of the tokens' positions; its own."""
    adapters: Tensor | None = None
    """int32 [T]: the low-rank adapter that each token's sequence asks for, 0 for none; None: nobody asks for one."""
    experts: Tensor | None = None
    """int64 [layers, experts], to which routers add how many tokens went where; None: nobody counts."""
    lanes: tuple[int, ...] = ()
    """Tokens of this step in each data-parallel lane, this one's among them; empty without lanes."""

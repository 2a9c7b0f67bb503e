"""Makes all ranks of a group run the same plans in the same order.

Every rank gets the plans by NATS on its own, so one could see a stale plan that another has dropped. Rank 0's order
holds: before each item it broadcasts what it is about to run, from host to host, and the others search their own inbox
for that.
"""

import queue
import time
from typing import TYPE_CHECKING, TypeAlias

import torch

from radixmesh.services.model_worker.parallel.mesh import ParallelGroup
from radixmesh.shared.errors import BusError
from radixmesh.shared.messages import StepPlan

if TYPE_CHECKING:
    from radixmesh.services.model_worker.engine.step_loop import Reset

PATIENCE_SECONDS = 10.0
"""How long a rank looks for a plan that rank 0 has and it has not, before it gives the group up."""

Inbox: TypeAlias = "queue.SimpleQueue[StepPlan | Reset | None]"


class RankOrder:
    """One rank's gate to its inbox."""

    def __init__(self, group: ParallelGroup) -> None:
        self._group = group

    def next(self, inbox: Inbox, *, block: bool) -> "StepPlan | Reset | None":
        """The next item to run.

        Raises:
            queue.Empty: nothing is there and `block` is False.
            BusError: rank 0 runs a plan that never reached this rank.
        """
        item = inbox.get(block=block)
        if self._group.size == 1 or not isinstance(item, StepPlan):
            return item
        header = self._group.broadcast(torch.tensor([item.epoch, item.seq], dtype=torch.int64))
        epoch, seq = (int(value) for value in header)
        return item if self._group.rank == 0 else self._find(item, inbox, epoch, seq)

    def _find(self, item: StepPlan, inbox: Inbox, epoch: int, seq: int) -> "StepPlan | Reset | None":
        """This rank's copy of rank 0's plan; what lies before it in the inbox is dropped."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        found: StepPlan | Reset | None = item
        while not (isinstance(found, StepPlan) and (found.epoch, found.seq) == (epoch, seq)):
            try:
                found = inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise BusError(f"plan {seq} of epoch {epoch} reached rank 0 but not rank {self._group.rank}") from None
            if found is None:
                return None
        return found

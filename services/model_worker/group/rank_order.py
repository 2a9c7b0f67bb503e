"""Makes all ranks of a group run the same plans in the same order.

Every rank gets the plans by NATS on its own, so one could see a stale plan that another has dropped. Rank 0's order
holds: before each item it broadcasts what it is about to run, from host to host, and the others search their own inbox
for that.
"""

import queue
import time

import torch

from radixmesh.services.model_worker.group.inbox import Inbox, Item
from radixmesh.services.model_worker.parallel.mesh import Collectives
from radixmesh.shared.errors import BusError
from radixmesh.shared.messages import StepPlan

PATIENCE_SECONDS = 10.0
"""How long a rank looks for a plan that rank 0 has and it has not, before it gives the group up."""


class OrderedInbox(Inbox):
    """One rank's inbox, in the order of rank 0's."""

    def __init__(self, control: Collectives) -> None:
        """`control`: from host to host, over all ranks."""
        super().__init__()
        self._control = control

    def next(self, *, block: bool) -> Item:
        """The next item to run.

        Raises:
            queue.Empty: nothing is there and `block` is False.
            BusError: rank 0 runs a plan that never reached this rank.
        """
        item = super().next(block=block)
        if self._control.size == 1 or not isinstance(item, StepPlan):
            return item
        header = self._control.broadcast(torch.tensor([item.epoch, item.seq], dtype=torch.int64))
        epoch, seq = (int(value) for value in header)
        return item if self._control.rank == 0 else self._find(item, epoch, seq)

    def _find(self, item: StepPlan, epoch: int, seq: int) -> Item:
        """This rank's copy of rank 0's plan; what lies before it in the inbox is dropped."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        found: Item = item
        while not (isinstance(found, StepPlan) and (found.epoch, found.seq) == (epoch, seq)):
            try:
                found = self._items.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                rank = self._control.rank
                raise BusError(f"plan {seq} of epoch {epoch} reached rank 0 but not rank {rank}") from None
            if found is None:
                return None
        return found

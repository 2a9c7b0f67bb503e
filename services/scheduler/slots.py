"""Running sequences by slot, and how far each decode may go; arrays, so that a step costs the same for any number."""

import heapq

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.sequence import Phase, Sequence


class SlotTable:
    """`usable` of a worker's `total` slots.

    By slot, for sequences in `Phase.DECODE`:
        kv_len   tokens whose KV is written once all plans so far have run, if each slot is accepted for all that it may
                 be; the end put aside, so that a report need only take off what it was not accepted for
        kv_end   the most KV it can ever need: one less than its limit, as the last token is never fed
        room     tokens that its pages hold
    """

    def __init__(self, total: int, usable: int) -> None:
        self.total = total
        self.usable = usable
        self.seqs: list[Sequence | None] = [None] * total
        self.kv_len = np.zeros(total, np.int64)
        self.kv_end = np.zeros(total, np.int64)
        self.room = np.zeros(total, np.int64)
        self._free = list(range(usable))
        self._decoding = np.zeros(total, bool)
        self._decode_slots: NDArray[np.intp] | None = None

    @property
    def running(self) -> int:
        return self.usable - len(self._free)

    @property
    def free(self) -> int:
        return len(self._free)

    def sequences(self) -> list[Sequence]:
        return [seq for seq in self.seqs if seq is not None]

    def take(self, seq: Sequence) -> int:
        """The lowest free slot, now the sequence's. Raises IndexError if there is none."""
        slot = heapq.heappop(self._free)
        self.seqs[slot] = seq
        seq.slot = slot
        seq.phase = Phase.PREFILL
        return slot

    def start_decoding(self, seq: Sequence, room: int) -> None:
        """The whole prompt is in plans: from the next plan on the slot decodes."""
        slot = seq.slot
        seq.phase = Phase.DECODE
        self.kv_len[slot] = len(seq.prompt)
        self.kv_end[slot] = seq.limit - 1
        self.room[slot] = room
        self._decoding[slot] = True
        self._decode_slots = None

    def give(self, seq: Sequence) -> None:
        """The slot is free for the next plan, which also releases it on the worker."""
        slot = seq.slot
        self.seqs[slot] = None
        self._decoding[slot] = False
        self._decode_slots = None
        seq.slot = -1
        heapq.heappush(self._free, slot)

    def decode_slots(self) -> NDArray[np.intp]:
        """Slots of sequences in `Phase.DECODE`, ascending. (numpy indexes fastest by its own index type.)"""
        if self._decode_slots is None:
            self._decode_slots = self._decoding.nonzero()[0]
        return self._decode_slots

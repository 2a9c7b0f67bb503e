"""What one replica's prefix cache holds, as far as its events tell."""

from collections import OrderedDict
from collections.abc import Sequence

from radixmesh.shared.messages import KvEvents

ASK_AGAIN = 2.0
"""Seconds after which a snapshot that did not come is asked for again."""

MAX_EXPECTED = 1 << 16
"""Blocks that may be expected at once; the oldest go first."""


class PrefixIndex:
    """The block hashes of one replica in one epoch, kept in step by the events' sequence numbers.

    Out of step (at first, or after a gap) it holds nothing, and stays so until an event with `cleared` comes.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._next_seq: int | None = None
        self._asked = -ASK_AGAIN
        self._blocks: set[int] = set()
        self._expected: OrderedDict[int, float] = OrderedDict()
        """Hash to the time at which it stops being expected; in the order of these times."""
        self.block_size = 0
        """Tokens per block; 0 until the first event."""

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def in_step(self) -> bool:
        return self._next_seq is not None

    def apply(self, events: KvEvents) -> None:
        """Takes in the next changes; those of another epoch, or seen before, are dropped."""
        if events.epoch != self._epoch or events.block_size <= 0:
            return
        if events.block_size != self.block_size:
            self._lose()
            self._expected.clear()
            self.block_size = events.block_size
        if self._next_seq is not None and events.seq < self._next_seq:
            return
        if events.cleared:
            self._blocks.clear()
        elif events.seq != (self._next_seq if self._next_seq is not None else 0):
            self._lose()
            return
        self._next_seq = events.seq + 1
        self._blocks.difference_update(events.removed.tolist())
        self._blocks.update(events.stored.tolist())

    def wants_snapshot(self, now: float) -> bool:
        """Whether the whole cache must be asked for now. True at most every `ASK_AGAIN` seconds."""
        if self.in_step or now - self._asked < ASK_AGAIN:
            return False
        self._asked = now
        return True

    def expect(self, hashes: Sequence[int], until: float) -> None:
        """Counts blocks as cached until a time, because a prompt with them is on its way."""
        for block in hashes:
            self._expected[block] = until
            self._expected.move_to_end(block)
        while len(self._expected) > MAX_EXPECTED:
            self._expected.popitem(last=False)

    def match(self, hashes: Sequence[int], now: float) -> int:
        """Tokens in the longest prefix that is cached or expected, of the prompt with these block hashes."""
        while self._expected and next(iter(self._expected.values())) <= now:
            self._expected.popitem(last=False)
        count = 0
        for block in hashes:
            if block not in self._blocks and block not in self._expected:
                break
            count += 1
        return count * self.block_size

    def _lose(self) -> None:
        self._next_seq = None
        self._blocks.clear()

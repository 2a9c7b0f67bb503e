"""Which waiting sequence goes first.

fcfs         first come, first served
lpm          longest cached prefix first
dfs-weight   depth first through the radix tree, the branch with most waiting prompts first
priority     highest priority first; one that is much higher preempts lower ones that run
"""

from collections import Counter
from collections.abc import Callable

from radixmesh.services.scheduler.config import PolicyName
from radixmesh.services.scheduler.memory.radix_node import Peek
from radixmesh.services.scheduler.memory.radix_tree import RadixTree
from radixmesh.services.scheduler.sequence import Phase, Sequence

Arrange = Callable[[list[Sequence], RadixTree], list[Sequence]]


def _as_they_are(window: list[Sequence], _tree: RadixTree) -> list[Sequence]:
    return window


def _peek(seq: Sequence, tree: RadixTree) -> Peek:
    """The sequence's cached prefix, looked up again only when the tree has changed."""
    if seq.peeked is None or seq.peeked_at != tree.version:
        seq.peeked, seq.peeked_at = tree.peek(seq.prompt, seq.namespace), tree.version
    return seq.peeked


def _longest_prefix(window: list[Sequence], tree: RadixTree) -> list[Sequence]:
    return sorted(window, key=lambda seq: -_peek(seq, tree).pages)


def _depth_first(window: list[Sequence], tree: RadixTree) -> list[Sequence]:
    paths = {seq: _peek(seq, tree).path for seq in window}
    weights = Counter(node for path in paths.values() for node in path)
    here = (0, 0)  # what ends at a node comes after what goes on below it
    return sorted(window, key=lambda seq: [*((-weights[node], node) for node in paths[seq]), here])


_ARRANGE: dict[PolicyName, Arrange] = {
    "fcfs": _as_they_are,
    "lpm": _longest_prefix,
    "dfs-weight": _depth_first,
    "priority": _as_they_are,
}


class Policy:
    """One of the four. `level` orders the whole queue; `arrange` orders the part of it that is looked at now."""

    def __init__(self, name: PolicyName, preemption_threshold: int) -> None:
        self.by_priority = name == "priority"
        self._threshold = preemption_threshold
        self._arrange = _ARRANGE[name]

    def level(self, seq: Sequence) -> int:
        """Lower levels come first in the queue; within one, the order of arrival."""
        if seq.promoted:
            return -(1 << 62)
        return -seq.work.priority if self.by_priority else 0

    def preempts(self, waiting: Sequence, running: Sequence) -> bool:
        """Whether `running` must leave its slot if `waiting` needs it."""
        higher = self.by_priority and waiting.work.priority - running.work.priority >= self._threshold
        return higher and not running.promoted

    def displaces(self, newcomer: Sequence, held: Sequence) -> bool:
        """Whether `held` must leave the replica if `newcomer` finds the queue full."""
        if held.phase is Phase.WAITING:
            return self.level(held) > self.level(newcomer)
        return self.preempts(newcomer, held)

    def arrange(self, window: list[Sequence], tree: RadixTree) -> list[Sequence]:
        """`window` in the order in which to admit; promoted ones, which stand at its front, stay there."""
        promoted = [seq for seq in window if seq.promoted]
        return promoted + self._arrange(window[len(promoted) :], tree)

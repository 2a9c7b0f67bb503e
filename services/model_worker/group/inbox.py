"""Where plans wait for the step loop's thread."""

import queue
from dataclasses import dataclass
from typing import TypeAlias

from radixmesh.shared.messages import StepPlan


@dataclass(frozen=True, slots=True)
class Reset:
    """Forget every sequence, and begin the epoch of a new claim; -1: the group is free."""

    epoch: int


Item: TypeAlias = StepPlan | Reset | None
"""What there is to do; None: to end."""


class Inbox:
    """What is put first is run first."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()

    def put(self, item: Item) -> None:
        """From any thread."""
        self._items.put(item)

    def next(self, *, block: bool) -> Item:
        """Takes the next item to run. Raises `queue.Empty` if there is none and `block` is False."""
        return self._items.get(block=block)

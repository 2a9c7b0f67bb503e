"""Where guesses at a sequence's next tokens come from. The model verifies them: no guess changes what it says."""

from collections.abc import Sequence
from typing import Protocol

from radixmesh.services.model_worker.engine.slots import Slot


class DraftSource(Protocol):
    """Proposes drafts, asked before each forward pass."""

    @property
    def most(self) -> int:
        """Tokens that it proposes for one pass over a sequence, at most; pages are granted for as many."""
        ...

    def propose(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Sequence[int]]:
        """What may follow ``slot.tokens[: slot.accepted]``: for each slot up to so many tokens, or none.

        They must be of the vocabulary, and the same on all ranks. Wrong ones cost time. All sequences of a pass are
        asked about at once, so that a source can propose less where many already fill it.
        """
        ...

    def release(self, slot: Slot) -> None:
        """The sequence is over or retracted: what is kept of it, such as KV of a draft model, is of no more use."""
        ...


class NoDrafts:
    """A `DraftSource` without a guess."""

    most = 0

    def propose(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Sequence[int]]:
        return [()] * len(wanted)

    def release(self, slot: Slot) -> None:
        return None

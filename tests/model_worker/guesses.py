"""A draft source that proposes what a test tells it to."""

from collections.abc import Callable, Sequence

from radixmesh.services.model_worker.engine.slots import Slot


class GivenDrafts:
    """Proposes `guess(slot)`, as far as there is room."""

    def __init__(self, most: int, guess: Callable[[Slot], Sequence[int]]) -> None:
        self.most = most
        self.proposed = 0
        self.known: set[int] = set()
        """Slots, by identity, that it was asked about and that are not released."""
        self._guess = guess

    def propose(self, wanted: Sequence[tuple[Slot, int]]) -> Sequence[Sequence[int]]:
        self.known |= {id(slot) for slot, _most in wanted}
        drafts = [list(self._guess(slot)[:most]) for slot, most in wanted]
        self.proposed += sum(map(len, drafts))
        return drafts

    def release(self, slot: Slot) -> None:
        self.known.discard(id(slot))

"""What a worker group of the simulator has prepared, and what may be asked of it."""

from collections import Counter

from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Claimed, Need, Prepare, Prepared, Work


class SimPreparations:
    """Takes `Prepare` messages; the test says when which rank answers. What cannot be right raises AssertionError."""

    def __init__(self, sizes: Claimed) -> None:
        self.sizes = sizes
        self.asked: dict[int, Prepare] = {}
        """By number: what not all ranks have answered."""
        self.counts: Counter[str] = Counter()
        """How often each key was asked for; the same one sent again is not counted."""
        self._answered: dict[int, dict[int, Prepared]] = {}
        """By number and rank."""
        self._failed: set[int] = set()
        self._needs: dict[int, Need] = {}
        """By number: what takes a place on the workers."""

    def ask(self, message: Prepare) -> None:
        if message.number in self._needs:
            return  # sent again
        ((kind, key),) = message.work.needs()
        assert message.kind == kind
        assert message.number == sum(self.counts.values()), "a number is left out"
        if message.replaces >= 0:
            assert len(self._answered[message.replaces]) == self.sizes.ranks, "some rank has not answered"
            assert self._needs.pop(message.replaces).kind == kind
        assert Need(kind, key) not in self.there() | self._expected(), "it is there, or was asked for"
        self.asked[message.number] = message
        self.counts[key] += 1
        self._needs[message.number] = Need(kind, key)
        self._answered[message.number] = {}
        kept = Counter(need.kind for need in self._needs.values())
        assert all(count <= self.sizes.prepares[kind] for kind, count in kept.items()), "more than the ranks keep"

    def answer(self, number: int, rank: int, code: ErrorCode | None = None, epoch: int = 0) -> Prepared:
        """What a rank says; the same when it says so again, whatever `code` is then."""
        answered = self._answered[number]
        if rank not in answered:
            text, param = ("the test wanted it", "lora") if code else ("", None)
            answered[rank] = Prepared(epoch=epoch, number=number, rank=rank, code=code, message=text, param=param)
            if code is not None:
                self._failed.add(number)
        if len(answered) == self.sizes.ranks:
            self.asked.pop(number, None)
        return answered[rank]

    def there(self) -> set[Need]:
        """What every rank has."""
        ready = {number for number in self._needs if number not in self.asked and number not in self._failed}
        return {self._needs[number] for number in ready}

    def _expected(self) -> set[Need]:
        return {self._needs[number] for number in self.asked if number not in self._failed}

    def check(self, work: Work) -> None:
        """Whether a step may run a sequence with this work."""
        assert set(work.needs()) <= self.there(), "a sequence runs without what it needs"

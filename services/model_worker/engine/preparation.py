"""What is prepared for sequences before they have a slot, on threads beside the steps.

The scheduler asks by `Prepare`, keeps the books, and says what may be forgotten: it admits a sequence when every rank
has answered `Prepared`, and replaces nothing that a plan may still use.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Need, Prepare, Prepared, Work

log = logging.getLogger(__name__)

THREADS = 2
"""Preparations at once, at most: the steps go on beside them."""

Job = Callable[[], Prepared]
"""A preparation. It may take long, and raises nothing."""


class Preparer(Protocol):
    """Makes results of one kind, on several threads beside that of the steps."""

    @property
    def kind(self) -> str:
        """The field of `Work` that asks for them: one of `Work.PREPARED`."""
        ...

    @property
    def most(self) -> int:
        """Results that are kept at once; the same on all ranks."""
        ...

    def prepare(self, work: Work) -> object:
        """The result for a work of which only the field `kind` is given.

        Raises:
            RequestError: the requests that need it cannot be served; their clients are told.
        """
        ...

    def forget(self, result: object) -> None:
        """No step makes use of it any more. Must be quick."""
        ...


@dataclass(slots=True, eq=False)
class _Entry:
    preparer: Preparer
    need: Need
    result: object = None
    answer: Prepared | None = None
    """None: it is not there yet."""


class PreparedResults:
    """One rank's results, in one epoch; none if there are no preparers."""

    def __init__(self, preparers: Iterable[Preparer] = (), rank: int = 0) -> None:
        self._preparers = {preparer.kind: preparer for preparer in preparers}
        self._rank = rank
        self._epoch = -1
        self._entries: dict[int, _Entry] = {}
        """By number of the `Prepare`."""
        self._found: dict[Need, _Entry] = {}
        """Those that are there."""
        self._ended: list[tuple[int, _Entry]] = []
        """Results of earlier epochs, that a step under way may still use, by the epoch that ended theirs."""
        self._lock = threading.Lock()

    @property
    def kinds(self) -> dict[str, int]:
        """What can be prepared: how many results of each kind are kept."""
        return {kind: preparer.most for kind, preparer in self._preparers.items()}

    def begin(self, epoch: int) -> None:
        """From here on there are only results of `epoch`. What is being prepared is forgotten when it is there."""
        with self._lock:
            self._epoch = epoch
            self._ended += [(epoch, entry) for entry in self._entries.values() if entry.answer is not None]
            self._entries.clear()
            self._found.clear()

    def forget_before(self, epoch: int) -> None:
        """Forgets what epochs below `epoch` have left: the steps' thread, between their last step and its first."""
        with self._lock:
            over = [entry for ended, entry in self._ended if ended <= epoch]
            self._ended = [(ended, entry) for ended, entry in self._ended if ended > epoch]
        for entry in over:
            _forget(entry)

    def ask(self, message: Prepare) -> Job | None:
        """What is to be run, on another thread than the steps', for its answer.

        None if that is being run, or if the message is of an epoch that has ended.
        """
        if message.epoch < self._epoch:
            return None
        if message.epoch > self._epoch:
            self.begin(message.epoch)
        with self._lock:
            replaced = self._entries.pop(message.replaces, None)
            if replaced is not None and self._found.get(replaced.need) is replaced:
                del self._found[replaced.need]
        if replaced is not None:
            _forget(replaced)
        known = self._entries.get(message.number)
        if known is not None:
            answer = known.answer
            return None if answer is None else lambda: answer
        preparer, needs = self._preparers.get(message.kind), message.work.needs()
        if preparer is None or [need.kind for need in needs] != [message.kind]:
            return lambda: self._failed(
                message, RequestError(ErrorCode.INTERNAL, f"no {message.kind} is prepared here")
            )
        entry = self._entries[message.number] = _Entry(preparer, needs[0])
        return lambda: self._run(message, entry)

    def of(self, work: Work) -> Mapping[str, object]:
        """The results that a sequence needs, by kind; for the steps' thread.

        Raises:
            ValueError: one of them is not there.
        """
        results = {}
        for need in work.needs():
            entry = self._found.get(need)
            if entry is None:
                raise ValueError(f"{need.kind} {need.key!r} has not been prepared")
            results[need.kind] = entry.result
        return results

    def _run(self, message: Prepare, entry: _Entry) -> Prepared:
        began = time.perf_counter()
        try:
            result = entry.preparer.prepare(message.work)
        except RequestError as error:
            answer = self._failed(message, error)
        except Exception:
            log.exception("%s %r could not be prepared", *entry.need)
            text = f"the model worker failed to prepare the {message.kind} of this request"
            answer = self._failed(message, RequestError(ErrorCode.INTERNAL, text))
        else:
            answer = Prepared(epoch=message.epoch, number=message.number, rank=self._rank)
        answer = answer.model_copy(update={"seconds": time.perf_counter() - began})
        with self._lock:
            entry.answer = answer
            if answer.code is not None:
                return answer
            entry.result = result
            wanted = self._entries.get(message.number) is entry
            if wanted:
                self._found[entry.need] = entry
        if not wanted:  # its epoch has ended meanwhile
            _forget(entry)
        return answer

    def _failed(self, message: Prepare, error: RequestError) -> Prepared:
        return Prepared(
            epoch=message.epoch,
            number=message.number,
            rank=self._rank,
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after=error.retry_after,
        )


def _forget(entry: _Entry) -> None:
    if entry.answer is not None and entry.answer.code is None:
        entry.preparer.forget(entry.result)


class PreparationThreads:
    """Runs jobs, as many at once as there are threads; these begin with the first job.

    Args:
        answer: called on one of them with what came of each job; must be quick.
    """

    def __init__(self, answer: Callable[[Prepare, Prepared], None], threads: int = THREADS) -> None:
        self._answer = answer
        self._threads = threads
        self._jobs: queue.SimpleQueue[tuple[Prepare, Job] | None] = queue.SimpleQueue()
        self._begun = self._stopped = False
        self._lock = threading.Lock()

    def run(self, message: Prepare, job: Job) -> None:
        """Queues a job for the answer to `message`."""
        self._jobs.put((message, job))
        if not self._begun:
            self._begun = True
            for number in range(self._threads):  # daemons: the process does not wait for what nobody will use
                threading.Thread(target=self._work, name=f"prepare-{number}", daemon=True).start()

    def stop(self) -> None:
        """Nothing is begun or answered after this; what is being prepared goes on to its end."""
        with self._lock:
            self._stopped = True
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None and not self._stopped:
            message, job = item
            answer = job()
            with self._lock:
                if not self._stopped:
                    self._answer(message, answer)

"""A preparer that takes as long as a test wants."""

import threading
from collections.abc import Callable
from dataclasses import replace

from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.model_worker.engine.preparation import PreparedResults, Preparer
from radixmesh.services.model_worker.start import Progress, Rank, load
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Work


class SleepingPreparer:
    """Prepares adapters that do nothing: names that begin with "slow" when `wake` is set, others at once.

    "bad" ones are refused, and "broken" ones fail.
    """

    kind = "lora"

    def __init__(self, most: int = 2) -> None:
        self.most = most
        self.wake = threading.Event()
        self.begun: list[str] = []
        self.forgotten: list[object] = []
        self.threads: set[str] = set()

    def prepare(self, work: Work) -> object:
        self.begun.append(work.lora)
        self.threads.add(threading.current_thread().name)
        if work.lora.startswith("slow"):
            assert self.wake.wait(60)
        if work.lora.startswith("bad"):
            raise RequestError(ErrorCode.INVALID_REQUEST, f"there is no adapter {work.lora!r}", param="lora")
        if work.lora.startswith("broken"):
            raise ZeroDivisionError("a secret")
        return f"adapter {work.lora}"

    def forget(self, result: object) -> None:
        self.forgotten.append(result)


def loading(*preparers: Preparer) -> Callable[[ModelWorkerSettings, Progress], Rank]:
    """A `load` for the service, to a worker that has these preparers."""

    def loaded(settings: ModelWorkerSettings, progress: Progress) -> Rank:
        worker = load(settings, progress)
        worker.engine.prepared = PreparedResults(preparers, settings.rank)
        prepares = worker.engine.prepared.kinds
        return replace(worker, sizes=worker.sizes.model_copy(update={"prepares": prepares}))

    return loaded

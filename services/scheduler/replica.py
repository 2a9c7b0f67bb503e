"""Everything a replica's scheduler knows of its sequences, and the few ways in which one changes place.

add ──▶ WAITING ──place──▶ PREFILL ──▶ DECODE ──▶ end
           ▲                  │           │        ▲
           └───── retract ────┴───────────┘        │
           └───────────────────────────────────────┘
"""

from dataclasses import dataclass
from typing import Protocol

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.memory.kv import KvMemory
from radixmesh.services.scheduler.memory.radix_node import Listener
from radixmesh.services.scheduler.outgoing import Effect, failed
from radixmesh.services.scheduler.queue.policies import Policy
from radixmesh.services.scheduler.queue.prefix_wait import PendingPrefixes
from radixmesh.services.scheduler.queue.preparation import Preparations
from radixmesh.services.scheduler.queue.waiting import FinishRate, WaitingQueue
from radixmesh.services.scheduler.sequence import Phase, Sequence
from radixmesh.services.scheduler.slots import SlotTable
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Claimed


class QueueWatcher(Protocol):
    """Hears how sequences pass through the queue; for tracing."""

    def queued(self, seq: Sequence) -> None: ...

    def admitted(self, seq: Sequence) -> str:
        """Returns the trace parent of the sequence's work from here on; may be empty."""
        ...

    def dropped(self, seq: Sequence, reason: str) -> None:
        """It left the queue without having been admitted."""
        ...


class NoWatcher:
    """Hears, and does nothing."""

    def queued(self, seq: Sequence) -> None:
        return None

    def admitted(self, seq: Sequence) -> str:
        return ""

    def dropped(self, seq: Sequence, reason: str) -> None:
        return None


@dataclass(slots=True)
class Counters:
    """Totals since the claim."""

    admitted: int = 0
    finished: int = 0
    retracted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    step_us: int = 0
    gap_us: int = 0


class Replica:
    """Queue, slots, memory, and who is where.

    Args:
        sizes: what the worker group said when it was claimed.
        replica_id, epoch: whose claim it was.
        watcher: told of the queue's comings and goings.
        listener: told of what the prefix cache stores and removes.
    """

    def __init__(
        self,
        settings: SchedulerSettings,
        sizes: Claimed,
        replica_id: str,
        epoch: int,
        watcher: QueueWatcher | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.settings = settings
        self.sizes = sizes
        self.watcher: QueueWatcher = watcher or NoWatcher()
        self.policy = Policy(settings.policy, settings.preemption_threshold)
        self.queue = WaitingQueue(self.policy)
        self.preparations = Preparations(sizes, replica_id, epoch, self.policy.level)
        self.kv = KvMemory(sizes.groups, settings.eviction, settings.prefix_cache, listener)
        usable = min(sizes.max_slots, settings.max_running_requests or sizes.max_slots)
        self.slots = SlotTable(sizes.max_slots, usable)
        self.pending_prefixes = PendingPrefixes(self.kv.page_size, settings.warm_min_tokens)
        self.prefilling: list[Sequence] = []
        """Sequences in `Phase.PREFILL`, in the order of their admission."""
        self.releases: list[int] = []
        """Slots that the next plan gives back on the worker."""
        self.requests: dict[str, dict[int, Sequence]] = {}
        """Every sequence that has not ended, by request and choice."""
        self.effects: list[Effect] = []
        self.rate = FinishRate()
        self.counters = Counters()
        self._decode_us = 0.0
        """What a step of nothing but decodes took lately, microseconds; 0 before the first."""
        self.planned_seq = -1
        self.reported_seq = -1

    def time_decodes(self, steps: int, step_us: int) -> None:
        """`steps` steps of nothing but decodes took `step_us` together."""
        latest = step_us / max(steps, 1)
        self._decode_us = 0.8 * self._decode_us + 0.2 * latest if self._decode_us else latest

    def seconds(self, steps: int) -> float:
        """What `steps` steps of nothing but decodes will take, as far as that is known."""
        return steps * self._decode_us / 1e6

    def quick_steps(self) -> int:
        """Decode steps that take no longer together than `multi_step_ms`; 1 while that is not known."""
        if not self.settings.multi_step_ms:
            return self.settings.max_multi_step
        return max(1, int(1000 * self.settings.multi_step_ms / self._decode_us)) if self._decode_us else 1

    @property
    def max_len(self) -> int:
        """Tokens, prompt and output together, that one sequence can come to: by the model, and by the memory.

        The last output token needs no page: it is never fed.
        """
        longest = self.kv.longest
        return self.sizes.max_model_len if longest is None else min(self.sizes.max_model_len, longest + 1)

    @property
    def taken(self) -> int:
        """Sequences that run or wait."""
        return self.slots.running + len(self.queue)

    @property
    def capacity(self) -> int:
        """The most that `taken` may be."""
        return self.slots.usable + self.settings.max_queued_requests

    def add(self, seq: Sequence) -> None:
        """A new sequence waits."""
        self.requests.setdefault(seq.request_id, {})[seq.choice] = seq
        self.queue.add(seq)
        if seq.needs:
            self.preparations.add(seq)
        self.watcher.queued(seq)

    def prepared(self, seq: Sequence, now: float) -> None:
        """All that a waiting sequence needs is there."""
        self.queue.prepared(seq)
        seq.prepare_seconds = max(0.0, now - seq.arrived_at)

    def place(self, seq: Sequence, now: float) -> None:
        """A waiting sequence, whose cached pages are attached, takes a slot."""
        self.queue.remove(seq)
        self.slots.take(seq)
        if seq.admissions == 0:
            seq.waited = max(0.0, now - seq.arrived_at)
            seq.cached = seq.attached
            seq.traceparent = self.watcher.admitted(seq)
            self.counters.admitted += 1
            self.counters.prompt_tokens += len(seq.prompt)
            self.counters.cached_tokens += seq.cached
        seq.admissions += 1
        self.prefilling.append(seq)
        if self.kv.prefix_cache:
            self.pending_prefixes.begin(seq)

    def attach(self, seq: Sequence, max_pages: int) -> None:
        """Gives a waiting sequence the cached prefix of its prompt: whole pages, up to `max_pages`."""
        self.kv.attach(seq.held, seq.prompt, seq.namespace, max_pages)
        seq.planned = seq.computed = seq.attached = seq.held.tree_pages * self.kv.page_size

    def detach(self, seq: Sequence) -> None:
        """Takes all memory from a sequence; what it has stored stays cached."""
        self.kv.detach(seq.held)
        seq.planned = seq.computed = 0

    def store(self, seq: Sequence) -> None:
        """Puts what is known to be written into the prefix cache."""
        self.kv.store(seq.held, seq.stored, seq.tokens)

    def slide(self, seq: Sequence) -> None:
        """Takes back the memory that a running sequence's windows have left behind."""
        self.kv.slide(seq.held, seq.reached, len(seq.prompt))

    def retract(self, seq: Sequence, now: float) -> None:
        """A running sequence goes back to the queue. What it has stays: tokens here, KV in the cache while it lasts.

        Plans in flight may still make tokens for it, so it is not admitted again before they are reported.
        """
        self._leave_slot(seq, keep=True)
        seq.fold()
        seq.phase = Phase.WAITING
        seq.ready_after = self.planned_seq
        if self.policy.by_priority:  # else those that have waited long would be preempted for each other
            seq.queued_at = now
            seq.promoted = False
        self.counters.retracted += 1
        self.queue.add(seq)

    def end(self, seq: Sequence, now: float, reason: str, *, keep: bool = True) -> None:
        """A sequence is over; with `keep`, what it computed stays cached. Does nothing the second time."""
        if seq.phase is Phase.ENDED:
            return
        if seq.phase is Phase.WAITING:
            self.queue.remove(seq)
            if seq.admissions == 0:
                self.watcher.dropped(seq, reason)
        else:
            self._leave_slot(seq, keep=keep)
        if seq.needs:
            self.preparations.remove(seq, self.planned_seq)
        seq.phase = Phase.ENDED
        choices = self.requests[seq.request_id]
        del choices[seq.choice]
        if not choices:
            del self.requests[seq.request_id]
        self.counters.finished += 1
        self.rate.ended(now)

    def fail(self, seq: Sequence, now: float, code: ErrorCode, text: str) -> None:
        """A sequence is over, and its gateway is told why."""
        self.end(seq, now, code, keep=False)
        error = RequestError(code, text)
        self.effects.append(failed(seq.gateway_id, seq.request_id, seq.attempt, error, choice=seq.choice))

    def check(self) -> list[str]:
        """What is wrong with the memory's books, one sentence each."""
        return self.kv.check(seq.held for seq in self.slots.sequences())

    def _leave_slot(self, seq: Sequence, *, keep: bool) -> None:
        if seq.phase is Phase.PREFILL:
            self.prefilling.remove(seq)
        self.releases.append(seq.slot)
        self.slots.give(seq)
        self.pending_prefixes.end(seq)
        if keep:
            self.store(seq)
        self.detach(seq)

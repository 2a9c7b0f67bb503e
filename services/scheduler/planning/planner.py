"""Makes the next plan. `Planner.next` is the whole of what a step does.

A plan is a list of spans: a decode is one of a token, a prompt's chunk one of many. A decode needs no token values: the
worker feeds its own last token, and its own guesses at the next ones. So a plan can be made before the one before it is
reported. What is known late is only who has ended, and how far each has come:

    plan n      decode 3 5 8, a draft each          with pages for two tokens more
    plan n+1    decode 3 5 8, a draft each          made and sent before n is reported: for another two
    report n    3 accepted for one, 5 has ended     the worker skips slot 5 in n+1
    plan n+2    release 5, decode 3 8               3 has room for one; 5 and its pages may go to another sequence
"""

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.radix_node import Peek
from radixmesh.services.scheduler.planning.plan_builder import Chunk, PlanBuilder, SentPlan, admission_bytes
from radixmesh.services.scheduler.replica import Replica
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import StepPlan

SCAN = 128
"""Waiting sequences that are looked at for one plan, at most."""


class Planner:
    """Turns a `Replica` into plans, and moves its sequences accordingly.

    Args:
        max_bytes: size of admissions and their pages in one plan, at most.
    """

    def __init__(self, replica: Replica, epoch: int, max_bytes: int) -> None:
        self._replica = replica
        self._epoch = epoch
        self._max_bytes = max_bytes
        self._headroom = replica.kv.pages_for(replica.settings.decode_headroom)

    def next(self, now: float) -> tuple[StepPlan, SentPlan] | None:
        """The next plan and what to remember of it; None if there is nothing to do now."""
        replica = self._replica
        plan = PlanBuilder()
        if replica.policy.by_priority and replica.queue.admissible:
            self._preempt(now)
        self._decodes(plan, now)
        budget = self._budget(plan)
        budget -= self._prefills(plan, budget, now)
        if replica.queue.admissible:
            self._admissions(plan, budget, now)
        message = plan.build(self._epoch, replica.planned_seq + 1, replica.releases)
        if message is None:
            return None
        replica.releases = []
        replica.planned_seq += 1
        return message, plan.in_flight(message.seq, replica.slots.seqs)

    # -- decodes --

    def _decodes(self, plan: PlanBuilder, now: float) -> None:
        """Every running slot goes on, by one token at least.

        When memory is short, first for less, then without the last in rank, which goes back to the queue.
        """
        slots, kv = self._replica.slots, self._replica.kv
        steps, drafts = self._steps(), self._replica.sizes.max_drafts
        while True:
            rows = self._going_on()
            if not rows.size:
                return
            length, advance = slots.kv_len[rows], steps * (1 + drafts)
            lacking = np.minimum(length + advance, slots.kv_end[rows]) - slots.room[rows]
            short = (lacking > 0).nonzero()[0].tolist()
            wanted = [kv.pages_for(int(lacking[i])) for i in short]
            if kv.moving:
                self._slide(rows[short])
                if not kv.can_take(sum(wanted)):
                    self._slide(rows)
            if kv.can_take(sum(wanted)):
                break
            if advance > 1:
                steps, drafts = 1, drafts if steps > 1 else 0
            else:
                self._replica.retract(max(slots.sequences(), key=lambda seq: seq.rank), now)
        if short:
            self._extend(plan, rows[short], wanted)
        plan.decode_slots, plan.decode_starts, plan.steps, plan.drafts = rows, length, steps, drafts
        slots.kv_len[rows] = length + advance

    def _going_on(self) -> NDArray[np.intp]:
        """Decoding slots, but for those that are at their end if they come as far as they may."""
        slots = self._replica.slots
        rows = slots.decode_slots()
        going_on = slots.kv_len[rows] < slots.kv_end[rows]
        return rows if going_on.all() else rows[going_on]

    def _steps(self) -> int:
        """Several decode steps in one plan only while nobody waits, and only as many as a newcomer would not feel."""
        replica = self._replica
        most = min(replica.settings.max_multi_step, replica.quick_steps())
        if most == 1 or replica.queue.admissible or replica.prefilling:
            return 1
        rows = replica.slots.decode_slots()
        left = replica.slots.kv_end[rows] - replica.slots.kv_len[rows]
        return max(1, min(most, int(left.max(initial=1))))

    def _extend(self, plan: PlanBuilder, slots: NDArray[np.intp], counts: list[int]) -> None:
        """So many pages more of each group for the decodes in `slots`."""
        kv, seqs = self._replica.kv, self._seqs(slots)
        for group in kv.groups:
            plan.extend(group, seqs, counts, kv.take(group, sum(counts)))
        self._replica.slots.room[slots] += np.multiply(counts, kv.page_size)

    def _slide(self, slots: NDArray[np.intp]) -> None:
        """Sequences that want pages first give back those that their windows have left behind; at need, all do."""
        for seq in self._seqs(slots):
            self._replica.slide(seq)

    def _seqs(self, slots: NDArray[np.intp]) -> list[Sequence]:
        seqs = self._replica.slots.seqs
        return [seq for slot in slots.tolist() if (seq := seqs[slot]) is not None]

    # -- prompts --

    def _budget(self, plan: PlanBuilder) -> int:
        """Prompt tokens for this plan; at least a page, so that prompts always get on."""
        settings, decodes = self._replica.settings, plan.decode_slots.size
        budget = settings.prefill_chunk - decodes if decodes else settings.max_prefill_tokens
        return max(budget, self._replica.kv.page_size)

    def _prefills(self, plan: PlanBuilder, budget: int, now: float) -> int:
        """Goes on with prompts that have begun. Returns the tokens used.

        Windows' pages are not set aside for a whole prompt. When the first one finds none, and nothing runs that could
        give some back, the last in rank goes back to the queue.
        """
        replica, used = self._replica, 0
        while True:
            for seq in list(replica.prefilling):
                count = self._chunk_size(plan, seq, budget - used)
                if count == 0:
                    break
                self._chunk(plan, seq, count)
                used += count
            nothing_runs = not plan.decode_slots.size and replica.planned_seq == replica.reported_seq
            if used or not replica.prefilling or not nothing_runs:
                return used
            replica.retract(max(replica.slots.sequences(), key=lambda seq: seq.rank), now)

    def _chunk_size(self, plan: PlanBuilder, seq: Sequence, budget: int) -> int:
        """Tokens of the prompt's next chunk: the rest of it, or whole pages, so that they can be shared at once."""
        replica = self._replica
        if replica.kv.moving:
            replica.slide(seq)
            spare = replica.slots.running if plan.decode_slots.size else 0
            room = replica.kv.room(seq.held, spare)
            budget = budget if room is None else min(budget, room - seq.planned)
        left = len(seq.prompt) - seq.planned
        return left if left <= budget else budget // replica.kv.page_size * replica.kv.page_size

    def _chunk(self, plan: PlanBuilder, seq: Sequence, count: int) -> None:
        replica = self._replica
        last = seq.planned + count == len(seq.prompt)
        plan.chunks.append(Chunk(seq, seq.slot, seq.planned, count, last))
        seq.planned += count
        pages = replica.kv.pages_for(seq.planned)
        if replica.kv.moving:
            replica.kv.extend(seq.held, pages)
        plan.grant(seq, pages)
        if last:
            replica.prefilling.remove(seq)
            replica.slots.start_decoding(seq, pages * replica.kv.page_size)

    # -- admissions --

    def _admissions(self, plan: PlanBuilder, budget: int, now: float) -> None:
        """Takes sequences from the queue until a slot, a page or the budget is missing."""
        replica = self._replica
        if budget < 1 or not replica.slots.free:
            return
        for seq in replica.policy.arrange(replica.queue.ready(replica.reported_seq, SCAN), replica.kv.tree):
            if budget < 1 or not replica.slots.free:
                break
            size = admission_bytes(seq)
            if size > self._max_bytes:
                text = f"a prompt of {len(seq.prompt)} tokens is too long for the bus: {self._max_bytes} bytes a plan"
                replica.fail(seq, now, ErrorCode.REQUEST_TOO_LARGE, text)
                continue
            cached = replica.kv.peek(seq.prompt, seq.namespace)
            if self._waits_for_prefix(seq, cached):
                continue
            if plan.bytes + size > self._max_bytes or not self._fits(seq, cached):
                break
            count = self._admit(plan, seq, budget, self._max_bytes - plan.bytes - size, now)
            if count == 0:
                break
            budget -= count

    def _waits_for_prefix(self, seq: Sequence, cached: Peek) -> bool:
        """Whether another sequence is computing what it lacks, and it has time to wait for that."""
        return not seq.promoted and self._replica.pending_prefixes.shared_soon(seq, cached.pages)

    def _fits(self, seq: Sequence, cached: Peek) -> bool:
        """Whether its whole prompt has pages now, and those who run keep room to go on."""
        replica = self._replica
        headroom = self._headroom * (replica.slots.running + 1) if replica.slots.running else 0
        pledged: list[int] = []
        if replica.kv.moving:
            begun = [replica.kv.wanted(other.held, len(other.prompt)) for other in replica.prefilling]
            pledged = [sum(wanted) for wanted in zip(*begun, strict=True)]
        return replica.kv.fits(len(seq.prompt), cached, headroom, pledged)

    def _admit(self, plan: PlanBuilder, seq: Sequence, budget: int, room: int, now: float) -> int:
        """Gives it a slot, its cached and its new pages, and its first chunk. Returns the tokens used; 0: it waits.

        Args:
            room: bytes that its cached pages' ids may take in the plan.
        """
        replica = self._replica
        replica.attach(seq, room // (4 * len(replica.kv.groups)))
        count, pages = self._chunk_size(plan, seq, budget), replica.kv.pages_for(len(seq.prompt))
        if count == 0 or not replica.kv.can_reserve(seq.held, pages):
            replica.detach(seq)
            return 0
        replica.place(seq, now)
        replica.kv.reserve(seq.held, pages)
        plan.admit(seq)
        self._chunk(plan, seq, count)
        return count

    def _preempt(self, now: float) -> None:
        """Makes room for the first in the queue by sending much lower priorities back to it, if that is enough."""
        replica = self._replica
        head = next(iter(replica.queue.ready(replica.reported_seq, 1)), None)
        if head is None:
            return
        cached = replica.kv.peek(head.prompt, head.namespace)
        if replica.slots.free and self._fits(head, cached):
            return
        if self._waits_for_prefix(head, cached):
            return  # room made now would go to others
        victims = [seq for seq in replica.slots.sequences() if replica.policy.preempts(head, seq)]
        if not victims or not replica.kv.would_fit(len(head.prompt), [seq.held for seq in victims]):
            return
        victims.sort(key=lambda seq: seq.rank)
        while victims and not (replica.slots.free and self._fits(head, replica.kv.peek(head.prompt, head.namespace))):
            replica.retract(victims.pop(), now)

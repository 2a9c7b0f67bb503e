"""A plan in the making, and what is remembered of it until its report."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.messages import Admission, StepPlan

_NO_SLOTS = np.empty(0, np.intp)
_NO_STARTS = np.empty(0, np.int64)
_ADMISSION_BYTES = 512
"""An admission's packed size without its work and its prompt, rounded up generously."""


@dataclass(slots=True)
class Chunk:
    """Part of a prompt in a plan."""

    seq: Sequence
    slot: int
    start: int
    count: int
    last: bool
    """Whether the prompt ends with it, so that it samples."""

    @property
    def end(self) -> int:
        return self.start + self.count


@dataclass(slots=True)
class SentPlan:
    """A plan that was made and not yet reported."""

    seq: int
    seqs: list[Sequence | None]
    """Who had each slot, while it runs."""
    decode_slots: NDArray[np.intp]
    chunks: list[Chunk]
    """Behind the decodes, the plan's other spans."""
    steps: int
    advance: int
    """Tokens that each decode may be accepted for, at most."""

    @property
    def slots(self) -> list[int]:
        """By span."""
        slots: list[int] = self.decode_slots.tolist()
        return slots + [chunk.slot for chunk in self.chunks]

    @property
    def most(self) -> list[int]:
        """Tokens that it may be accepted for, by span."""
        return [self.advance] * self.decode_slots.size + [self.steps * chunk.last for chunk in self.chunks]


def admission_bytes(seq: Sequence) -> int:
    """About how large the sequence's admission is when packed."""
    return _ADMISSION_BYTES + seq.prompt.nbytes + seq.work_bytes


@dataclass(slots=True)
class PlanBuilder:
    """Collects one plan. Sequences that are in it already must not be retracted any more."""

    admissions: list[Admission] = field(default_factory=list)
    grant_slots: list[int] = field(default_factory=list)
    grant_groups: list[int] = field(default_factory=list)
    grant_starts: list[int] = field(default_factory=list)
    grant_counts: list[int] = field(default_factory=list)
    grant_pages: list[int] = field(default_factory=list)
    decode_slots: NDArray[np.intp] = field(default_factory=lambda: _NO_SLOTS)
    decode_starts: NDArray[np.int64] = field(default_factory=lambda: _NO_STARTS)
    """By decode: the furthest that it may be by then."""
    drafts: int = 0
    """Draft tokens of each decode."""
    chunks: list[Chunk] = field(default_factory=list)
    steps: int = 1
    bytes: int = 0
    """Of admissions and the pages that come with them."""

    def admit(self, seq: Sequence) -> None:
        self.bytes += admission_bytes(seq)
        self.admissions.append(
            Admission(
                slot=seq.slot,
                request_id=seq.request_id,
                choice=seq.choice,
                attempt=seq.attempt,
                detokenizer_id=seq.detokenizer_id,
                work=seq.work,
                prompt_ids=seq.prompt,
                resumed=seq.resumed,
                computed_tokens=seq.attached,
                cached_tokens=seq.cached,
                traceparent=seq.traceparent,
            )
        )

    def grant(self, seq: Sequence, upto: int) -> None:
        """Tells the worker of the sequence's pages up to number `upto`."""
        for group, holding in enumerate(seq.held.groups):
            fresh = holding.pages[holding.granted : upto]
            if fresh:
                self.grant_slots.append(seq.slot)
                self.grant_groups.append(group)
                self.grant_starts.append(holding.granted)
                self.grant_counts.append(len(fresh))
                self.grant_pages += fresh
                self.bytes += 4 * len(fresh)
                holding.granted = upto

    def extend(self, group: int, seqs: list[Sequence], counts: list[int], pages: list[int]) -> None:
        """Gives sequences that decode `counts` more of a group's `pages`, and tells the worker."""
        at = 0
        for seq, count in zip(seqs, counts, strict=True):
            holding = seq.held.groups[group]
            self.grant_slots.append(seq.slot)
            self.grant_starts.append(holding.granted)
            holding.pages += pages[at : at + count]
            holding.granted += count
            at += count
        self.grant_groups += [group] * len(seqs)
        self.grant_counts += counts
        self.grant_pages += pages
        self.bytes += 4 * len(pages)

    def in_flight(self, number: int, seqs: list[Sequence | None]) -> SentPlan:
        """What to remember of the plan; `seqs` by slot, as they are now."""
        return SentPlan(number, seqs.copy(), self.decode_slots, self.chunks, self.steps, self.steps * (1 + self.drafts))

    def build(self, epoch: int, number: int, releases: list[int]) -> StepPlan | None:
        """The plan; None if it would do nothing."""
        if not (releases or self.admissions or self.chunks or self.decode_slots.size):
            return None
        fields: dict[str, Any] = {"steps": self.steps, "admissions": self.admissions, **self._spans()}
        if releases:
            fields["releases"] = np.array(releases, np.int32)
        if self.grant_slots:
            fields["grant_slots"] = np.array(self.grant_slots, np.int32)
            fields["grant_groups"] = np.array(self.grant_groups, np.int32)
            fields["grant_starts"] = np.array(self.grant_starts, np.int32)
            fields["grant_counts"] = np.array(self.grant_counts, np.int32)
            fields["grant_pages"] = np.array(self.grant_pages, np.int32)
        return StepPlan(epoch=epoch, seq=number, **fields)

    def _spans(self) -> dict[str, NDArray[Any]]:
        """The columns: decodes, then chunks."""
        decodes, chunks = self.decode_slots.size, self.chunks
        return {
            "span_slots": _column(self.decode_slots, [chunk.slot for chunk in chunks]),
            "span_starts": _column(self.decode_starts, [chunk.start for chunk in chunks]),
            "span_counts": _column(np.ones(decodes, np.int32), [chunk.count for chunk in chunks]),
            "span_sampled": _column(np.ones(decodes, np.uint8), [chunk.last for chunk in chunks]),
            "span_drafts": _column(np.full(decodes, self.drafts, np.int32), [0] * len(chunks)),
        }


def _column(decodes: NDArray[Any], chunks: list[int]) -> NDArray[Any]:
    return np.concatenate((decodes, chunks)) if chunks else decodes

"""What a worker group is to do, and what came of it: scheduler to model workers, and back."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from typing import ClassVar

from radixmesh.shared.messages.codec import Message, Part
from radixmesh.shared.messages.columns import Int32Column, Int64, UInt8Column, empty_column
from radixmesh.shared.messages.work import Work


class Admission(Part):
    """A sequence takes a slot. Its pages come in the same plan's grants."""

    slot: Int64
    request_id: str
    choice: Int64
    attempt: Int64
    detokenizer_id: str
    work: Work
    prompt_ids: Int32Column
    """Prompt, then the `resumed` output tokens of earlier attempts."""
    resumed: Int64 = 0
    """How many of `prompt_ids`, at its end, are output. New tokens are numbered from here."""
    computed_tokens: Int64 = 0
    """How many of `prompt_ids`, at its start, already have their KV in the granted pages."""
    cached_tokens: Int64 = 0
    """What usage tells: `computed_tokens` of the first admission. After a retraction there may be more or fewer."""
    traceparent: str = ""


@dataclass(slots=True)
class Span:
    """What a forward pass does for one sequence."""

    slot: int
    start: int
    """Position of the first token. In `prompt_ids`, where it is; behind them, the furthest that it can be: the worker
    goes on from where the sequence's accepted tokens end."""
    count: int
    """Tokens whose KV is computed; 1 behind the prompt."""
    sampled: bool
    """Whether the tokens that follow are sampled: from the end of `prompt_ids` on."""
    drafts: int
    """Guesses at those tokens that the worker may verify in the same pass, at most; the pages for them are granted."""


class StepPlan(Message):
    """What a worker group does in one step, in this order: releases, admissions, grants, then the forward passes.

    The first pass runs the spans, at most one a slot; in each of the `steps - 1` further ones, the sampled spans go on
    behind what they have sampled.
    """

    VERSION: ClassVar[int] = 5  # 5: grants by group

    epoch: Int64
    seq: Int64
    """0, 1, 2, ... within an epoch. Plan 0 resets the worker. A gap is a failure to recover from."""
    releases: Int32Column = empty_column("<i4")
    """Slots that are given back."""
    admissions: list[Admission] = []
    grant_slots: Int32Column = empty_column("<i4")
    grant_groups: Int32Column = empty_column("<i4")
    """Which of `Claimed.groups` the pages are of."""
    grant_starts: Int32Column = empty_column("<i4")
    """Where in the slot's block table the first one goes; what a window no longer shows has no pages."""
    grant_counts: Int32Column = empty_column("<i4")
    grant_pages: Int32Column = empty_column("<i4")
    """Ragged by `grant_counts`: page ids, one behind the other."""
    span_slots: Int32Column = empty_column("<i4")
    """The columns of the plan's spans: see `Span`."""
    span_starts: Int32Column = empty_column("<i4")
    span_counts: Int32Column = empty_column("<i4")
    span_sampled: UInt8Column = empty_column("|u1")
    span_drafts: Int32Column = empty_column("<i4")
    steps: Int64 = 1

    def spans(self) -> Iterator[Span]:
        """Raises ValueError, at the first span without all five, if the columns differ in length."""
        columns = (self.span_slots, self.span_starts, self.span_counts, self.span_sampled, self.span_drafts)
        return starmap(Span, zip(*(column.tolist() for column in columns), strict=True))


class StepReport(Message):
    """What came of one `StepPlan`. One row per span of the plan, in its order."""

    VERSION: ClassVar[int] = 2  # 2: a row for each span, where each slot that had sampled had one before

    epoch: Int64
    seq: Int64
    accepted: Int32Column = empty_column("<i4")
    """Output tokens that the span's sequence went on by: at most ``steps * (1 + drafts)`` if it was to be sampled, 0 if
    not, or if it had ended."""
    tokens: Int32Column = empty_column("<i4")
    """Ragged by `accepted`."""
    finish: UInt8Column = empty_column("|u1")
    """`Finish` of each row after its last token."""
    failed_slots: Int32Column = empty_column("<i4")
    failures: list[str] = []
    """One sentence for each of `failed_slots`; these are at their end, behind what they were accepted for."""
    step_us: Int64 = 0
    """Time from the start of the plan's first forward pass to the last one's tokens, microseconds."""
    gap_us: Int64 = 0
    """Time the worker was idle between the previous plan and this one, microseconds, 0 if nothing ran then."""
    vectors: bytes = b""
    """float32 rows of embeddings or scores, for tasks other than GENERATE."""

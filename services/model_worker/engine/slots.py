"""What a worker remembers of each running sequence."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.model_worker.sampling.columns import SamplingRow
from radixmesh.shared.messages import Admission, StepPlan


class Slot:
    """One sequence: its tokens, its pages, how far its KV is computed, how it is sampled.

        tokens   [ prompt ............ | resumed ... | new ... ]
                 0            prompt_len      admitted         accepted
        launched ─────────────────────────────────▶            KV written, or queued to be, for tokens[:launched]

    While a decode is in flight on an accelerator, `launched` is `accepted` or more: the token is still on the device.
    While drafts are, it counts them too; `settle` takes back those that were not accepted.
    """

    def __init__(self, index: int, admission: Admission, max_model_len: int) -> None:
        """Raises ValueError when the admission contradicts itself; the text says how."""
        prompt = admission.prompt_ids
        self.index = index
        self.request_id = admission.request_id
        self.choice = admission.choice
        self.attempt = admission.attempt
        self.detokenizer_id = admission.detokenizer_id
        self.work = admission.work
        self.cached_tokens = admission.cached_tokens
        self.prompt_len = len(prompt) - admission.resumed
        self.admitted = self.accepted = len(prompt)
        self.launched = admission.computed_tokens
        self.undecided = False
        """Drafts are in flight: where the sequence goes on is not known."""
        self.ended = False
        self.sampling: SamplingRow
        self.prepared: Mapping[str, object] = {}
        """What its work needed, by kind: see `Preparer`."""
        if self.prompt_len < 1 or self.admitted >= max_model_len:
            raise ValueError(f"a prompt of {self.admitted} tokens does not fit a context of {max_model_len}")
        if not 0 <= self.launched < self.admitted:
            raise ValueError(f"{self.launched} computed tokens of a prompt of {self.admitted}")
        budget = max_model_len - self.prompt_len
        most = self.work.params.max_tokens
        self.max_output = budget if most is None else min(most, budget)
        self.tokens: NDArray[np.int32] = np.empty(self.prompt_len + max(self.max_output, admission.resumed), np.int32)
        self.tokens[: self.admitted] = prompt

    @property
    def output_len(self) -> int:
        """Output tokens known so far, those of earlier attempts counted in."""
        return self.accepted - self.prompt_len

    @property
    def output(self) -> NDArray[np.int32]:
        """Known output tokens, int32 [output_len]."""
        return self.tokens[self.prompt_len : self.accepted]

    def settle(self) -> None:
        """The drafts in flight are decided: the next pass begins with the newest token, over what is to be rejected."""
        self.launched = self.accepted - 1
        self.undecided = False

    def append(self, token: int) -> None:
        """Takes a sampled token; there is room up to `max_output`."""
        self.tokens[self.accepted] = token
        self.accepted += 1


class BlockTables:
    """Page ids of every slot, by group of layers: int32 [max_slots, pages of the longest sequence].

    Those that a window has left behind stay, though the pages are others' by now.
    """

    def __init__(self, max_slots: int, page_size: int, max_len: int, groups: int = 1) -> None:
        self.page_size = page_size
        self.pages = [np.zeros((max_slots, -(-max_len // page_size)), np.int32) for _ in range(groups)]
        self._counts = [[0] * max_slots for _ in range(groups)]
        """By group and slot: pages up to the last one."""

    def room(self, slot: int) -> int:
        """Tokens up to which the slot has pages."""
        counts = self._counts
        pages = counts[0][slot] if len(counts) == 1 else min(of_slot[slot] for of_slot in counts)
        return pages * self.page_size

    def clear(self, slot: int) -> None:
        for counts in self._counts:
            counts[slot] = 0

    def grant(self, plan: StepPlan) -> None:
        """Puts the plan's pages where they belong."""
        at = 0
        columns = (plan.grant_slots, plan.grant_groups, plan.grant_starts, plan.grant_counts)
        for slot, group, start, count in zip(*(column.tolist() for column in columns), strict=True):
            self.pages[group][slot, start : start + count] = plan.grant_pages[at : at + count]
            self._counts[group][slot] = start + count
            at += count

"""What one forward pass computes of each sequence, and the batch that these make.

A sequence's stretch is the plan's span, moved to where the sequence really is, and the drafts behind it:

    tokens     [ .......... a b c ]
    stretch                 [ b c | d e ]
                        start     end   stop
    logits                      ▲   ▲ ▲          behind the last token and each draft, if it is sampled
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radixmesh.services.model_worker.engine.slots import BlockTables, Slot
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.sampling.columns import SamplingRow


@dataclass(slots=True)
class Stretch:
    """Tokens ``start <= position < end`` of a sequence, the last of which may still be on the device, and drafts."""

    slot: Slot
    start: int
    end: int
    sampled: bool
    room: int = 0
    """Drafts that it may have, at most."""
    drafts: Sequence[int] = ()

    @property
    def stop(self) -> int:
        return self.end + len(self.drafts)

    @property
    def rows(self) -> int:
        """Logit rows that it wants."""
        return 1 + len(self.drafts) if self.sampled else 0

    def sampling(self) -> list[SamplingRow]:
        """How each of its rows is sampled, if it is."""
        row = self.slot.sampling
        return [row, *(row.behind(self.drafts[: i + 1]) for i in range(len(self.drafts)))] if self.drafts else [row]


class StepInput(NamedTuple):
    """What a forward pass and its sampling are given. R logit rows, stretch by stretch."""

    batch: ForwardBatch
    positions: NDArray[np.int64]
    """[R], where in its output the row's token goes."""
    slots: NDArray[np.int64]
    """[R]"""


def step_input(
    stretches: Sequence[Stretch], tables: BlockTables, last_token: Tensor, *, with_rope_length: bool
) -> StepInput:
    """Lays the stretches end to end.

    Args:
        last_token: int64 [max_slots], on the device: each slot's newest token, for those that the host has not seen.
        with_rope_length: whether the model asks for it.
    """
    indices = np.array([stretch.slot.index for stretch in stretches], np.int64)
    prompts = np.array([stretch.slot.prompt_len for stretch in stretches], np.int64)
    starts = np.array([stretch.start for stretch in stretches], np.int64)
    stops = np.array([stretch.stop for stretch in stretches], np.int64)
    rows = np.array([stretch.rows for stretch in stretches], np.int64)
    counts = stops - starts
    query_start = np.zeros(len(stretches) + 1, np.int64)
    np.cumsum(counts, out=query_start[1:])
    positions = np.arange(query_start[-1]) - np.repeat(query_start[:-1] - starts, counts)
    width = -(-int(stops.max()) // tables.page_size)
    pages = [of_group[indices, :width] for of_group in tables.pages]
    batch = ForwardBatch.from_numpy(
        token_ids=np.concatenate([_token_ids(stretch) for stretch in stretches]),
        positions=positions,
        kv_locations=_locations(pages, tables.page_size, counts, positions),
        query_start=query_start,
        context_len=stops,
        block_tables=pages,
        logit_rows=_last_of_each(query_start[1:], rows),
        device=last_token.device,
        rope_length=np.repeat(prompts, counts) if with_rope_length else None,
    )
    _fill_from_device(batch, stretches, query_start, last_token)
    return StepInput(batch, _last_of_each(stops + 1 - prompts, rows), np.repeat(indices, rows))


def _last_of_each(ends: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each stretch that lies before one of `ends`, the last `counts` places, in order."""
    total = counts.cumsum()
    return np.repeat(ends - total, counts) + np.arange(total[-1])


def _locations(
    tables: Sequence[NDArray[np.int32]], page_size: int, counts: NDArray[np.int64], positions: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Where the KV of a batch's tokens goes: by group, int64 [T]."""
    rows, columns, offsets = np.repeat(np.arange(len(counts)), counts), positions // page_size, positions % page_size
    return [table[rows, columns].astype(np.int64) * page_size + offsets for table in tables]


def _token_ids(stretch: Stretch) -> NDArray[np.int64]:
    """int64 [tokens]; 0 where the token is still on the device."""
    if stretch.start >= stretch.slot.accepted:
        return np.zeros(1, np.int64)
    tokens = stretch.slot.tokens[stretch.start : stretch.end].astype(np.int64)
    return np.append(tokens, stretch.drafts) if stretch.drafts else tokens


def _fill_from_device(
    batch: ForwardBatch, stretches: Sequence[Stretch], query_start: NDArray[np.int64], last_token: Tensor
) -> None:
    late = [i for i, stretch in enumerate(stretches) if stretch.start >= stretch.slot.accepted]
    if late:
        rows = torch.from_numpy(query_start[late]).to(last_token.device)
        slots = torch.tensor([stretches[i].slot.index for i in late], device=last_token.device)
        batch.token_ids[rows] = last_token[slots]

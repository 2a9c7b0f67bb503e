"""What one forward pass computes of each sequence, and the batch that these make.

A sequence's stretch is the plan's span, moved to where the sequence really is:

    tokens     [ .......... a b c ]
    stretch                [ b c ]      start, end
    logits                    ▲         behind the last token, if it is sampled
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radixmesh.services.model_worker.batch import ForwardBatch
from radixmesh.services.model_worker.slots import BlockTables, Slot


@dataclass(slots=True)
class Stretch:
    """Tokens ``start <= position < end`` of a sequence; the last one may still be on the device."""

    slot: Slot
    start: int
    count: int
    sampled: bool

    @property
    def end(self) -> int:
        return self.start + self.count


def forward_batch(
    stretches: Sequence[Stretch], tables: BlockTables, last_token: Tensor, *, with_rope_length: bool
) -> ForwardBatch:
    """The model's input.

    Args:
        last_token: int64 [max_slots], on the device: each slot's newest token, for those that the host has not seen.
        with_rope_length: whether the model asks for it.
    """
    counts = np.array([stretch.count for stretch in stretches], np.int64)
    starts = np.array([stretch.start for stretch in stretches], np.int64)
    query_start = np.zeros(len(stretches) + 1, np.int64)
    np.cumsum(counts, out=query_start[1:])
    context = starts + counts
    positions = np.arange(query_start[-1]) - np.repeat(query_start[:-1] - starts, counts)
    pages, locations = _places(stretches, tables, int(context.max()), counts, positions)
    sampled = np.array([stretch.sampled for stretch in stretches])
    rope_length = None
    if with_rope_length:
        rope_length = np.repeat(np.array([stretch.slot.prompt_len for stretch in stretches], np.int64), counts)
    batch = ForwardBatch.from_numpy(
        token_ids=np.concatenate([_token_ids(stretch) for stretch in stretches]),
        positions=positions,
        kv_locations=locations,
        query_start=query_start,
        context_len=context,
        block_tables=pages,
        logit_rows=query_start[1:][sampled] - 1,
        device=last_token.device,
        rope_length=rope_length,
    )
    _fill_from_device(batch, stretches, query_start, last_token)
    return batch


def output_positions(stretches: Sequence[Stretch]) -> NDArray[np.int64]:
    """Where in its output the token of each logit row goes: int64 [R]."""
    return np.array([s.end - s.slot.prompt_len for s in stretches if s.sampled], np.int64)


def _places(
    stretches: Sequence[Stretch], tables: BlockTables, longest: int, counts: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:  # fmt: skip
    """The block tables of a batch [B, pages], and where its tokens' KV go [T]."""
    size = tables.page_size
    indices = np.array([stretch.slot.index for stretch in stretches], np.int64)
    pages = tables.pages[indices, : -(-longest // size)]
    locations = pages[np.repeat(np.arange(len(stretches)), counts), positions // size].astype(np.int64) * size
    locations += positions % size
    return pages, locations


def _token_ids(stretch: Stretch) -> NDArray[np.int64]:
    """int64 [tokens]; 0 where the token is still on the device."""
    if stretch.start >= stretch.slot.accepted:
        return np.zeros(1, np.int64)
    return stretch.slot.tokens[stretch.start : stretch.end].astype(np.int64)


def _fill_from_device(
    batch: ForwardBatch, stretches: Sequence[Stretch], query_start: NDArray[np.int64], last_token: Tensor
) -> None:
    late = [i for i, stretch in enumerate(stretches) if stretch.start >= stretch.slot.accepted]
    if late:
        rows = torch.from_numpy(query_start[late]).to(last_token.device)
        slots = torch.tensor([stretches[i].slot.index for i in late], device=last_token.device)
        batch.token_ids[rows] = last_token[slots]

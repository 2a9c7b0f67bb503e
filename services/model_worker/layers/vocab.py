"""The two ends of a model that are as wide as its vocabulary, split over ranks by rows.

The vocabulary is padded to a multiple of the number of ranks; padding rows are zero and never looked up,
and their logits are cut off.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.weight_slice import WeightSlice, frozen_parameter
from radixmesh.services.model_worker.forward.context import ForwardContext
from radixmesh.services.model_worker.layers.linear import Build, Linear


class VocabShare:
    """This rank's rows of the vocabulary: `start:start + rows` of `vocab_size`, stored in `padded` rows."""

    def __init__(self, vocab_size: int, rank: int, size: int) -> None:
        self.vocab_size = vocab_size
        self.padded = -(-vocab_size // size)
        self.start = min(rank * self.padded, vocab_size)
        self.rows = min(self.padded, vocab_size - self.start)

    def slice_of(self, name: str, weight: Tensor) -> WeightSlice:
        """Loads `weight` [padded, hidden]; its padding is zeroed here."""
        weight[self.rows :].zero_()
        rows = slice(self.start, self.start + self.rows)
        shape = (self.vocab_size, weight.shape[1])
        return WeightSlice(name, shape, (rows, slice(None)), weight[: self.rows])


class VocabEmbedding(nn.Module):
    """Token ids int64 [T] -> [T, hidden], on every rank."""

    def __init__(self, vocab_size: int, hidden: int, build: Build) -> None:
        super().__init__()
        self.group = build.mesh.tp
        self.share = VocabShare(vocab_size, build.mesh.tp.rank, build.mesh.tp.size)
        shape = (self.share.padded, hidden)
        self.weight = frozen_parameter(torch.empty(shape, dtype=build.dtype, device=build.device))

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        yield self.share.slice_of(f"{prefix}.weight", self.weight)

    def forward(self, ids: Tensor, context: ForwardContext) -> Tensor:
        if self.group.size == 1:
            return F.embedding(ids, self.weight)
        local = ids - self.share.start
        outside = (local < 0) | (local >= self.share.rows)
        rows = F.embedding(local.masked_fill(outside, 0), self.weight)
        return self.group.all_reduce(rows.masked_fill(outside.unsqueeze(-1), 0))


class LMHead(Linear):
    """Hidden states [R, hidden] -> logits float32 [R, vocab_size], the whole vocabulary on every rank."""

    is_head = True

    def __init__(self, vocab_size: int, hidden: int, build: Build, tied: VocabEmbedding | None) -> None:
        """`tied` is the embedding whose weight this head reuses, as the checkpoint has no `lm_head`."""
        share = VocabShare(vocab_size, build.mesh.tp.rank, build.mesh.tp.size)
        if tied is not None:  # do not allocate what is replaced at once
            build = replace(build, device=torch.device("meta"))
        super().__init__(hidden, share.padded, False, build)
        if tied is not None:
            self.weight = tied.weight
        self.weight_is_shared = tied is not None
        self.group = build.mesh.tp
        self.share = share

    def weight_slices(self, prefix: str) -> Iterator[WeightSlice]:
        if not self.weight_is_shared:
            yield self.share.slice_of(f"{prefix}.weight", self.weight)

    def forward(self, x: Tensor, context: ForwardContext) -> Tensor:
        logits = self.group.all_gather(self.method.apply(self, x))
        return logits[:, : self.share.vocab_size].float()

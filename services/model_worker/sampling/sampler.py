"""From logits to tokens.

    logits -> penalties, bias, barred ends -> / temperature -> top_k -> top_p -> min_p -> draw

A draw is one uniform number per row, turned into a token by the inverse of the row's cumulative weights in
vocabulary order. The filters only say which weights are zero. So the token is a function of the row's logits,
parameters and random key, whatever else is in the batch.

Ties at the edge of top_k or top_p are all kept: a set defined by a threshold does not depend on how a sort
orders equals (16-bit logits have many).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radixmesh.services.model_worker.forward.traits import DeviceTraits
from radixmesh.services.model_worker.sampling.columns import SamplingBatch
from radixmesh.services.model_worker.sampling.philox import uniforms

# Weights are summed by blocks of this many before one block is searched: a cumulative sum over the whole
# vocabulary takes 60 ms for 32 rows of 152k on two cores, the block sums 0.5 ms.
_BLOCK = 512
# A nucleus almost always lies in this many candidates; finding them is 10 times cheaper than sorting the row.
_SHORTLIST = 1024
# Room for the equals of the last of a top_k, so that all of them are seen.
_TIES = 32


@dataclass(frozen=True, slots=True, eq=False)
class Logprobs:
    """Natural logarithms under the model's own distribution, before bias, penalties and temperature."""

    rows: NDArray[np.int64]  # [L] rows of the batch that asked
    counts: NDArray[np.int64]  # [L] how many of the N likeliest each asked for
    chosen: Tensor  # float32 [L], the chosen token's
    top_ids: Tensor  # int64 [L, N], N = max(counts), likeliest first
    top: Tensor  # float32 [L, N]


@dataclass(frozen=True, slots=True, eq=False)
class SampleOutput:
    """One token per row, on the logits' device."""

    tokens: Tensor  # int64 [R]; meaningless where `failed`
    failed: Tensor  # bool [R]: NaN or +inf among the row's logits, or nothing but -inf
    logprobs: Logprobs | None  # None when no row asked


def token_logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """logits float32 [L, vocab], tokens int64 [L] -> (theirs [L], top ids [L, top], theirs [L, top])."""
    logprobs = torch.log_softmax(logits, -1)
    values, ids = logprobs.topk(top, -1)
    return logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1), ids, values


class Sampler:
    """Stateless; see the module."""

    def __init__(self, traits: DeviceTraits) -> None:
        """`traits`: of the device on which logits lie."""
        # Whether a nucleus fits the shortlist is read by the host, for which a GPU would have to stop.
        self.shortlist = _SHORTLIST if traits.synchronous else None
        self._find_likeliest = _likeliest_on_the_host if traits.synchronous else _likeliest

    def sample(self, logits: Tensor, batch: SamplingBatch, positions: NDArray[np.integer]) -> SampleOutput:
        """One token for each of R rows.

        logits float32 [R, vocab], overwritten; -inf means that a token is not allowed (a grammar's mask).
        positions [R]: index of the token to be sampled in its output, from 0.
        """
        raw = logits[batch.logprob_index] if len(batch.logprob_rows) else None
        self._adjust(logits, batch, positions)
        best, tokens = self._find_likeliest(logits)
        failed = ~best.isfinite()
        if len(batch.drawn):
            drawn = self._draw(logits, best, batch, positions)
            if len(batch.drawn) == len(batch.rows):
                tokens = drawn
            else:
                tokens[batch.drawn_index] = drawn
        return SampleOutput(tokens, failed, None if raw is None else _logprobs(raw, tokens, batch))

    def _adjust(self, logits: Tensor, batch: SamplingBatch, positions: NDArray[np.integer]) -> None:
        for index in batch.penalized:
            batch.rows[index].penalize(logits[index])
        if batch.bias is not None:
            row, token, bias = batch.bias
            logits.index_put_((row, token), bias, accumulate=True)
        for index in batch.barred:
            if positions[index] < batch.rows[index].params.min_tokens:
                logits[index, batch.rows[index].end_ids] = float("-inf")

    def _draw(self, logits: Tensor, best: Tensor, batch: SamplingBatch, positions: NDArray[np.integer]) -> Tensor:
        """Tokens int64 [r] of the rows `batch.drawn`."""
        if len(batch.drawn) < len(batch.rows):
            logits, best = logits[batch.drawn_index], best[batch.drawn_index]
        # With the largest at 0, no temperature can overflow. In place: fresh pages for a copy cost as much as
        # the arithmetic.
        scaled = logits.sub_(best.unsqueeze(1))
        if batch.temperature is not None:
            scaled.div_(batch.temperature)
        if batch.floor is None and not len(batch.cut_index):
            weights = scaled.exp_()
        else:
            weights = scaled.exp()
            weights.masked_fill_(scaled < self._floor(scaled, weights, batch), 0.0)
        numbers = uniforms(batch.seeds, batch.choices, positions[batch.drawn])
        return _invert(weights, torch.from_numpy(numbers).to(logits.device, non_blocking=True))

    def _floor(self, scaled: Tensor, weights: Tensor, batch: SamplingBatch) -> Tensor:
        """The least scaled logit that survives the filters, of which there are some: float32 [r, 1]."""
        floor = batch.floor
        if floor is not None and not len(batch.cut_index):
            return floor
        everything = len(batch.cut_index) == len(batch.drawn)
        if not everything:
            scaled, weights = scaled[batch.cut_index], weights[batch.cut_index]
        cut = self._cut_floor(scaled, weights, batch)
        if everything:
            return cut if floor is None else torch.maximum(cut, floor)
        whole = scaled.new_full((len(batch.drawn), 1), float("-inf"))
        whole[batch.cut_index] = cut
        return whole if floor is None else torch.maximum(whole, floor)

    def _cut_floor(self, scaled: Tensor, weights: Tensor, batch: SamplingBatch) -> Tensor:
        """The same for the rows `batch.cut_index` and the filters top_k and top_p: float32 [c, 1]."""
        vocab = scaled.shape[1]
        if not batch.has_top_p:
            return _kth(scaled.topk(batch.largest_k, -1).values, batch.top_k)
        limited = batch.top_k < vocab
        # The mass of the whole row matters only to a top_p without a top_k.
        mass = batch.top_p
        if not batch.all_limited:
            mass = _block_sums(weights).sum(-1, keepdim=True, dtype=torch.float64)
        if self.shortlist is None or self.shortlist >= vocab:
            return _nucleus(scaled.sort(-1, descending=True).values, mass, limited, batch.top_k, batch.top_p)[0]
        length = batch.largest_k + _TIES
        if not batch.all_limited:
            length = max(self.shortlist, length)
        candidates = scaled.topk(min(vocab, length), -1).values
        floor, closed = _nucleus(candidates, mass, limited, batch.top_k, batch.top_p)
        if not bool(closed.all()):
            rest = (~closed).flatten().nonzero().flatten()
            # numpy sorts with SIMD, in a tenth of the time torch takes.
            ranked = torch.from_numpy(np.sort(scaled[rest].numpy())[:, ::-1].copy())
            floor[rest] = _nucleus(ranked, mass[rest], limited[rest], batch.top_k[rest], batch.top_p[rest])[0]
        return floor


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit [R] and its token int64 [R], the first of equals; NaN if the row has one."""
    best, tokens = logits.max(-1)
    return best, tokens


def _likeliest_on_the_host(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The same. numpy compares with SIMD: 0.1 ms for 32 rows of 32k where torch takes 1.2."""
    tokens = torch.from_numpy(logits.numpy().argmax(-1))
    return logits.gather(1, tokens.unsqueeze(1)).squeeze(1), tokens


def _kth(ranked: Tensor, top_k: Tensor) -> Tensor:
    """The top_k-th largest [c, 1]; -inf where `top_k` [c, 1] is beyond the list, that is, off."""
    length = ranked.shape[1]
    kth = ranked.gather(1, top_k.clamp(max=length) - 1)
    return kth.masked_fill(top_k > length, float("-inf"))


def _nucleus(ranked: Tensor, mass: Tensor, limited: Tensor, top_k: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor]:
    """The floor of top_k, then top_p, from a row's largest scaled logits.

    ranked [c, n] in falling order; mass float64 [c, 1]: weight of the whole row; limited bool, top_k int64,
    top_p float64 [c, 1]. Returns (floor [c, 1], whether the n values were enough to know it [c, 1]).
    """
    allowed = _kth(ranked, top_k)
    weights = ranked.double().exp().masked_fill_(ranked < allowed, 0.0)
    total = weights.cumsum(-1)
    mass = torch.where(limited, total[:, -1:], mass)
    # A token is kept when those likelier than it hold less than top_p of the mass.
    kept = ((total - weights < top_p * mass) & (weights > 0)).sum(-1, keepdim=True).clamp(min=1)
    edge = torch.where(top_p < 1.0, ranked.gather(1, kept - 1), allowed)
    floor = torch.maximum(edge, allowed)
    # What lies past the list is at most its last value: out, when that already is below what is sought.
    closed = ranked[:, -1:] < torch.where(limited, allowed, floor)
    return floor, closed | (top_p >= 1.0)


def _block_sums(weights: Tensor) -> Tensor:
    """[r, vocab] -> [r, blocks]; the last block may be short."""
    whole = weights.shape[1] // _BLOCK * _BLOCK
    sums = weights[:, :whole].view(weights.shape[0], -1, _BLOCK).sum(-1)
    if whole == weights.shape[1]:
        return sums
    return torch.cat((sums, weights[:, whole:].sum(-1, keepdim=True)), 1)


def _invert(weights: Tensor, numbers: Tensor) -> Tensor:
    """Tokens int64 [r] at the quantiles `numbers` float64 [r] of the weights float32 [r, vocab]."""
    vocab = weights.shape[1]
    blocks = _block_sums(weights).cumsum(-1, dtype=torch.float64)
    target = numbers.unsqueeze(1) * blocks[:, -1:]
    block = _search(blocks, target)
    before = blocks.gather(1, (block - 1).clamp(min=0)).masked_fill_(block == 0, 0.0)
    index = block * _BLOCK + torch.arange(_BLOCK, device=weights.device)
    inside = weights.gather(1, index.clamp(max=vocab - 1)).masked_fill_(index >= vocab, 0.0)
    offset = _search(inside.cumsum(-1, dtype=torch.float64), target - before)
    return (block * _BLOCK + offset).clamp_(max=vocab - 1).squeeze(1)


def _search(totals: Tensor, target: Tensor) -> Tensor:
    """The first place where the running total [r, n] exceeds target [r, 1]; int64 [r, 1].

    Rounding can carry the target up to the total: it is kept just below, so a weight of zero is never chosen.
    """
    end = totals[:, -1:]
    target = torch.minimum(target, torch.nextafter(end, torch.zeros_like(end)))
    return torch.searchsorted(totals, target, right=True).clamp_(max=totals.shape[1] - 1)


def _logprobs(raw: Tensor, tokens: Tensor, batch: SamplingBatch) -> Logprobs:
    top = min(int(batch.logprob_counts.max()), raw.shape[1])
    chosen, ids, values = token_logprobs(raw, tokens[batch.logprob_index], top)
    return Logprobs(batch.logprob_rows, batch.logprob_counts, chosen, ids, values)

"""How each row of a batch is sampled, as columns: built when the set of running sequences changes."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radixmesh.shared.messages import MIN_REPETITION_PENALTY, SamplingParams

# Below this a temperature is greedy: dividing by it would leave a single token its whole mass anyway.
_MIN_TEMPERATURE = 1e-5


class SamplingRow:
    """One sequence's way of sampling. Token counts are kept on the device, if a penalty reads them."""

    def __init__(
        self,
        params: SamplingParams,
        choice: int,
        vocab_size: int,
        device: torch.device,
        prompt: NDArray[np.integer],
        output: NDArray[np.integer],
        end_ids: Sequence[int] = (),
    ) -> None:
        """`prompt` and `output` are the token ids so far; `end_ids` are barred until `params.min_tokens`."""
        self.params = params
        self.choice = choice
        self.greedy = params.temperature < _MIN_TEMPERATURE or params.top_k == 1
        self.end_ids = [token for token in end_ids if token < vocab_size] if params.min_tokens else []
        self.bias = {token: bias for token, bias in params.logit_bias.items() if 0 <= token < vocab_size}
        self.penalized = bool(params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1.0)
        if self.penalized:
            counts = torch.from_numpy(np.bincount(output, minlength=vocab_size).astype(np.int32))
            in_prompt = torch.zeros(vocab_size, dtype=torch.bool)
            in_prompt[torch.from_numpy(prompt.astype(np.int64))] = True
            self.output_counts = counts.to(device)  # int32 [vocab]
            self.in_prompt = in_prompt.to(device)  # bool [vocab]

    def observe(self, tokens: Tensor) -> None:
        """Count output tokens, int64 [n] on the device, without reading their values."""
        if self.penalized:
            self.output_counts.index_add_(0, tokens, torch.ones_like(tokens, dtype=torch.int32))

    def behind(self, drafts: Sequence[int]) -> "SamplingRow":
        """What the row will be if `drafts` come next. What that observes is not counted here."""
        if not self.penalized:
            return self
        row = copy(self)
        row.output_counts = self.output_counts.clone()
        row.observe(torch.tensor(drafts, device=self.output_counts.device))
        return row

    def penalize(self, logits: Tensor) -> None:
        """In place on float32 [vocab]. The repetition penalty (arXiv:1909.05858) counts the prompt too."""
        params = self.params
        used = self.output_counts > 0
        if params.repetition_penalty != 1.0:
            penalty = max(params.repetition_penalty, MIN_REPETITION_PENALTY)
            repeated = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits.copy_(torch.where(used | self.in_prompt, repeated, logits))
        if params.frequency_penalty:
            logits.sub_(self.output_counts, alpha=params.frequency_penalty)
        if params.presence_penalty:
            logits.sub_(used.float(), alpha=params.presence_penalty)


class SamplingBatch:
    """R rows as columns. What one row asks for changes neither another's result nor its cost."""

    def __init__(self, rows: Sequence[SamplingRow], vocab_size: int, device: torch.device) -> None:
        self.rows = tuple(rows)
        self.device = device
        params = [row.params for row in rows]
        self.penalized = [index for index, row in enumerate(rows) if row.penalized]
        self.barred = [index for index, row in enumerate(rows) if row.end_ids]
        self.bias = self._bias_columns()
        logprobs = [(index, p.logprobs) for index, p in enumerate(params) if p.logprobs is not None]
        # Rows are also kept as tensors: indexing a GPU's tensor with a numpy array would wait for a copy.
        self.logprob_rows = np.array([index for index, _ in logprobs], dtype=np.int64)
        self.logprob_index = torch.from_numpy(self.logprob_rows).to(device)
        self.logprob_counts = np.array([count for _, count in logprobs], dtype=np.int64)

        drawn = [index for index, row in enumerate(rows) if not row.greedy]
        self.drawn = np.array(drawn, dtype=np.int64)  # [r], the rows that are not greedy
        self.drawn_index = torch.from_numpy(self.drawn).to(device)
        self.seeds = np.array([params[index].seed for index in drawn], dtype=np.uint64)
        self.choices = np.array([rows[index].choice for index in drawn], dtype=np.int64)
        temperatures = [params[index].temperature for index in drawn]
        self.temperature = self._column(temperatures) if set(temperatures) != {1.0} else None
        floors = [params[index].min_p for index in drawn]
        # min_p keeps p >= min_p * max p: a floor on the scaled logit's distance from the largest.
        self.floor = self._column(floors).log() if any(floors) else None

        limits = [_limit(params[index].top_k, vocab_size) for index in drawn]
        nuclei = [min(params[index].top_p, 1.0) for index in drawn]
        cut = [place for place in range(len(drawn)) if limits[place] < vocab_size or nuclei[place] < 1.0]
        # [c] places in `drawn` with a top_k or a top_p
        self.cut_index = torch.tensor(cut, dtype=torch.int64, device=device)
        self.top_k = torch.tensor([limits[place] for place in cut], device=device).unsqueeze(1)
        self.top_p = self._column([nuclei[place] for place in cut], torch.float64)
        self.largest_k = max((limits[place] for place in cut if limits[place] < vocab_size), default=0)
        self.all_limited = all(limits[place] < vocab_size for place in cut)
        self.has_top_p = any(nuclei[place] < 1.0 for place in cut)

    def _column(self, values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self.device).unsqueeze(1)

    def _bias_columns(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(row, token, bias) of every entry of every row's `logit_bias`."""
        entries = [(index, token, bias) for index, row in enumerate(self.rows) for token, bias in row.bias.items()]
        if not entries:
            return None
        index, token, bias = zip(*entries, strict=True)
        return (
            torch.tensor(index, device=self.device),
            torch.tensor(token, device=self.device),
            torch.tensor(bias, dtype=torch.float32, device=self.device),
        )

    def observe(self, tokens: Tensor) -> None:
        """Count the sampled tokens, int64 [R], for the penalties of the steps to come."""
        for index in self.penalized:
            self.rows[index].observe(tokens[index : index + 1])


def _limit(top_k: int, vocab_size: int) -> int:
    return top_k if 0 < top_k < vocab_size else vocab_size

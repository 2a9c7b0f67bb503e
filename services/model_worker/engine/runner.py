"""The model, its KV pool and the sampler, as the engine uses them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.forward.batch import ForwardBatch
from radixmesh.services.model_worker.forward.executor import Executor
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.sampling.columns import SamplingBatch, SamplingRow
from radixmesh.services.model_worker.sampling.sampler import SampleOutput, Sampler
from radixmesh.shared.messages import SamplingParams

_FAILED = -1  # in place of a token


class ModelRunner:
    """Runs one step: forward pass, sampling, and the tokens' way back to where the next step finds them."""

    def __init__(self, model: CausalLM, kv: KVCache, device: Device, executor: Executor) -> None:
        """`executor` runs `model` over `kv` on `device`."""
        self.model = model
        self.kv = kv
        self._executor = executor
        self._device = device
        self.device = device.torch_device
        self.length_dependent_rope = model.config.rope.length_dependent
        self._sampler = Sampler(device.traits)
        self._rows: tuple[SamplingRow, ...] = ()
        self._columns = SamplingBatch((), model.config.vocab_size, self.device)

    def sampling_row(
        self,
        params: SamplingParams,
        choice: int,
        prompt: NDArray[np.int32],
        output: NDArray[np.int32],
        eos_token_ids: frozenset[int],
    ) -> SamplingRow:
        """A sequence's way of sampling; `prompt` and `output` are its token ids so far."""
        ends = set(params.stop_token_ids) | (frozenset() if params.ignore_eos else eos_token_ids)
        return SamplingRow(params, choice, self.model.config.vocab_size, self.device, prompt, output, sorted(ends))

    def device_works(self) -> bool:
        """False after an error that all later work on the device will meet too."""
        try:
            self._device.synchronize()
        except RuntimeError:
            return False
        return True

    @torch.inference_mode()
    def run(
        self,
        batch: ForwardBatch,
        rows: Sequence[SamplingRow],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
        last_token: Tensor,
    ) -> SampleOutput | None:
        """Queues one step on the device.

        Args:
            rows: R, one per logit row of `batch`.
            positions: int64 [R], output index of the token to be sampled.
            slots: int64 [R], where in `last_token` the rows' tokens go; one of them, where several have one place.
            last_token: int64 [max_slots], on the device.

        Returns:
            The sampled tokens, or None when R is 0: then the step only filled the cache.
        """
        context = self._executor.begin(batch)
        hidden = self._executor.hidden_states(context, batch.logit_rows)
        if not rows:
            return None
        logits = self._executor.logits(hidden, context)
        sampled = self._agreed(self._sampler.sample(logits, self._batch(rows), positions))
        last_token[torch.from_numpy(slots).to(self.device, non_blocking=True)] = sampled.tokens
        self._columns.observe(sampled.tokens)
        return sampled

    def _agreed(self, sampled: SampleOutput) -> SampleOutput:
        """Rank 0's tokens on every rank: sums that differ in their last bits must not set ranks apart.

        They go from device to device, without a stop of the host: the next step's decodes may be fed before anyone has
        read them. By the control group, every rank would wait for its device here.
        """
        group = self.model.mesh.tp
        if group.size == 1:
            return sampled
        told = group.broadcast(sampled.tokens.masked_fill(sampled.failed, _FAILED))
        return replace(sampled, tokens=told.clamp(min=0), failed=told == _FAILED)

    def _batch(self, rows: Sequence[SamplingRow]) -> SamplingBatch:
        """The rows as columns; the same object while the same sequences run."""
        key = tuple(rows)
        if key != self._rows:
            self._rows, self._columns = key, SamplingBatch(key, self.model.config.vocab_size, self.device)
        return self._columns

"""Log-probabilities in bfloat16 against transformers in float32, over the same bfloat16 weights, at every position.

The bounds are those that docs/architecture.md states.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.layers import PackedLinear
from radixmesh.services.model_worker.devices.executor import Executor, TorchExecutor
from radixmesh.services.model_worker.models import CausalLM, load_model, open_model
from radixmesh.services.model_worker.platform import get_platform
from tests.checkpoints import make_checkpoint, settle
from tests.model_worker.kernel_fixtures import library
from tests.model_worker.paged_driver import PagedDriver, Sequence

SIZES: dict[str, Any] = {
    "vocab_size": 1000,
    "hidden_size": 192,
    "intermediate_size": 448,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
LENGTH = 96
CHUNKS = (37, 1, 30)
"""The prompt comes in these; the rest is fed token by token, as a decode."""
TOP = 20


class Bound(NamedTuple):
    """Of absolute differences, in nats, over the 20 likeliest tokens of every position."""

    largest: float
    mean: float
    of_transformers: float
    """The mean, by that of transformers' own bfloat16."""


TORCH = Bound(largest=0.4, mean=0.08, of_transformers=1.1)
FUSED = Bound(largest=0.25, mean=0.04, of_transformers=0.6)


def torchs(model: CausalLM, driver: PagedDriver) -> Executor:
    return TorchExecutor(model, driver.kv)


def fused(model: CausalLM, driver: PagedDriver) -> Executor:
    return FusedDecoder(model, driver.kv, int16=True)


def fused_exact(model: CausalLM, driver: PagedDriver) -> Executor:
    return FusedDecoder(model, driver.kv, int16=False)


EXECUTORS: dict[str, tuple[Callable[[CausalLM, PagedDriver], Executor], Bound]] = {
    "torch": (torchs, TORCH),
    "native layers": (torchs, TORCH),
    "fused": (fused, FUSED),
    "fused, exact weights": (fused_exact, FUSED),
}


class Checkpoint(NamedTuple):
    path: Path
    tokens: list[int]
    expected: Tensor
    """transformers' float32 log-probabilities [LENGTH, vocab] after each of `tokens`."""
    likely: Tensor
    """Ids [LENGTH, TOP] of the likeliest."""
    theirs: float
    """How far transformers' own bfloat16 is off, on average."""

    def off(self, got: Tensor) -> Tensor:
        """Absolute differences [LENGTH, TOP] of log-probabilities."""
        return (got - self.expected).gather(1, self.likely).abs()


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("logprobs")
    tokens = torch.randint(3, SIZES["vocab_size"], (LENGTH,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.inference_mode():
        model = make_checkpoint(path, request.param, **SIZES)
        settle(model)
        model.bfloat16().save_pretrained(path)
        rough = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        expected = model.float()(torch.tensor([tokens])).logits[0].log_softmax(-1)
    found = Checkpoint(path, tokens, expected, expected.topk(TOP).indices, 0.0)
    return found._replace(theirs=found.off(rough).mean().item())


def logprobs(run: Executor, driver: PagedDriver, tokens: list[int]) -> Tensor:
    """Teacher-forced, after each of `tokens`: float32 [len(tokens), vocab]."""
    sequence, found = Sequence(tokens), []
    for count in (*CHUNKS, *[1] * (len(tokens) - sum(CHUNKS))):
        batch = driver.batch([(sequence, count)])
        found.append(run.logits(run.hidden_states(batch, torch.arange(count))))
        sequence.computed += count
    return torch.cat(found).log_softmax(-1)


@pytest.mark.parametrize("name", EXECUTORS)
def test_bfloat16_logprobs_are_within_a_bound_of_float32(name: str, checkpoint: Checkpoint) -> None:
    make, bound = EXECUTORS[name]
    options: dict[str, Any] = {}
    if name != "torch":
        library().set_threads(2)
    if name == "native layers":
        options = {"linear_method": PackedLinear(library(), ""), "attention_backend": "native"}
    model = load_model(open_model(checkpoint.path), get_platform("cpu"), dtype=torch.bfloat16, **options)
    driver = PagedDriver(model, page_size=16)
    off = checkpoint.off(logprobs(make(model, driver), driver, checkpoint.tokens))
    assert off.max() < bound.largest
    assert off.mean() < bound.mean
    assert off.mean() < bound.of_transformers * checkpoint.theirs

"""Whatever the scheduler decides, a request's tokens are those of the model run alone.

The real scheduler core plans, the real engine runs: random arrivals, chunk sizes, pages too few for all (evictions and
retractions), priorities, shared prefixes, preparations with one place, cancels, flushes, several plans ahead, several
steps a plan, drafts that are right, wrong and partly right, windows whose pages change hands. The reference is the same
model with no cache, no company and the prompt in one piece, in float32 and in torch; both torch and the fused kernels
are held against it.
"""

import atexit
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radixmesh.local import Replica
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.engine.drafts import DraftSource
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.outputs import Row
from radixmesh.services.model_worker.engine.preparation import PreparedResults
from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.group.claim import kv_groups
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import open_model
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.shared.messages import Admit, Cancel, Choice, Claimed, Finish, SamplingParams, Work
from tests.checkpoints import make_checkpoint
from tests.model_worker.guesses import GivenDrafts
from tests.model_worker.loaded import CPU, load_model, make_runner
from tests.model_worker.paged_driver import PagedDriver
from tests.model_worker.preparers import SleepingPreparer

CONTEXT = 96
MAX_NEW = 10
PREFIXES: tuple[list[int], ...] = ([], [11] * 20, list(range(30, 63)), list(range(30, 50)) + [7] * 20)


@dataclass(eq=False)
class Ask:
    """One request as the test wants it."""

    prefix: int
    tail: list[int]
    max_tokens: int
    arrives: int
    leaves: int | None
    """Step at which the client goes away."""
    priority: int
    lora: str
    """Names what is to be prepared, and changes nothing else."""
    tokens: list[int] = field(default_factory=list)
    finish: Finish = Finish.RUNNING

    @property
    def prompt(self) -> list[int]:
        return [*PREFIXES[self.prefix], *self.tail]


asks = st.lists(
    st.builds(
        Ask,
        prefix=st.integers(0, len(PREFIXES) - 1),
        tail=st.lists(st.integers(3, 511), min_size=1, max_size=12),
        max_tokens=st.integers(1, MAX_NEW),
        arrives=st.integers(0, 20),
        leaves=st.one_of(st.none(), st.integers(1, 40)),
        priority=st.integers(0, 2),
        lora=st.sampled_from(["", "", "a", "b", "c"]),
    ),
    min_size=1,
    max_size=8,
)


WINDOWS: dict[str, Any] = {
    "use_sliding_window": True,
    "sliding_window": 10,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}


@cache
def checkpoint(windows: bool) -> str:
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory)
    make_checkpoint(Path(directory), "qwen3", max_position_embeddings=CONTEXT, **(WINDOWS if windows else {}))
    return directory


def load(windows: bool) -> CausalLM:
    return load_model(open_model(checkpoint(windows)), CPU, max_length=CONTEXT)


@cache
def model(windows: bool) -> CausalLM:
    return load(windows)


@cache
def alone(windows: bool, prompt: tuple[int, ...]) -> list[int]:
    with torch.inference_mode():
        return PagedDriver(model(windows), 16).alone(list(prompt), MAX_NEW)


class Crowded(Replica):
    """A small replica, and the clients who come and go."""

    def __init__(
        self,
        fused: bool,
        page_size: int,
        num_pages: int,
        drafts: DraftSource | None,
        window_pages: int | None,
        **fields: Any,
    ) -> None:
        """`window_pages`: some layers have windows, with so many pages more than the fewest; None: none has."""
        windows = window_pages is not None
        mine = load(windows) if fused else model(windows)  # the fused decoder takes the weights over
        specs = mine.kv_groups(page_size)
        counts = [num_pages if spec.window is None else spec.least_pages + (window_pages or 0) for spec in specs]
        kv = KVCache(specs, counts, CPU.torch_device)
        executor = FusedDecoder(mine, kv) if fused else TorchExecutor(mine, kv)
        engine = Engine(
            make_runner(mine, kv, executor=executor),
            max_slots=4,
            max_model_len=CONTEXT,
            page_size=page_size,
            eos_token_ids=[],
            drafts=drafts,
            prepared=PreparedResults([SleepingPreparer(most=1)]),
        )
        sizes = Claimed(
            group_id="g",
            groups=kv_groups(kv),
            max_slots=4,
            max_model_len=CONTEXT,
            vocab_size=512,
            max_drafts=engine.drafts.most,
            prepares=engine.prepared.kinds,
        )
        super().__init__(SchedulerCore(SchedulerSettings(**fields), sizes, replica_id="r", epoch=1), engine)

    def run(self, asked: list[Ask], flush_every: int) -> None:
        step, pending = 0, list(asked)
        while pending or self.plans or not self.core.idle:
            leaving = [i for i, ask in enumerate(asked) if ask.leaves == step]
            if leaving:
                names = [str(i) for i in leaving]
                self.core.cancel(Cancel(request_ids=names, choices=[-1] * len(names), attempts=[0] * len(names)), step)
            self.core.tick(step)
            if step % flush_every == 0:
                self.core.flush()
            arriving = [ask for ask in pending if ask.arrives <= step]
            pending = [ask for ask in pending if ask.arrives > step]
            for result in self.step([self._admit(ask, asked.index(ask)) for ask in arriving], step):
                for row in result.rows:
                    self._take(row, asked[int(row.slot.request_id)])
            assert self.core.check() == []
            step += 1
            assert step < 2000, "it does not come to an end"

    def _take(self, row: Row, ask: Ask) -> None:
        assert row.slot.prepared == ({"lora": f"adapter {ask.lora}"} if ask.lora else {})
        # A retracted sequence may make a token again that was under way: the detokenizer drops such.
        if row.index == len(ask.tokens):
            ask.tokens.append(row.token)
            ask.finish = row.finish
        else:
            assert row.index < len(ask.tokens)
            assert ask.tokens[row.index] == row.token

    def _admit(self, ask: Ask, number: int) -> Admit:
        return Admit(
            request_id=str(number),
            attempt=0,
            gateway_id="g",
            detokenizer_id="d",
            replica_epoch=1,
            prompt_ids=np.array(ask.prompt, np.int32),
            work=Work(
                params=SamplingParams(temperature=0.0, max_tokens=ask.max_tokens),
                lora=ask.lora,
                priority=ask.priority,
            ),
            choices=[Choice(index=0)],
            time_left=1e12,
        )


def guesses(windows: bool, asked: list[Ask], most: int, right: float, seed: int) -> GivenDrafts:
    """Up to `most` tokens, each of which is `right` that often; some of none."""
    random = np.random.default_rng(seed)

    def guess(slot: Slot) -> list[int]:
        known = alone(windows, tuple(asked[int(slot.request_id)].prompt))[slot.output_len :]
        guessed = [token if random.random() < right else int(random.integers(512)) for token in known]
        return guessed[: int(random.integers(most + 1))]

    return GivenDrafts(most, guess)


@pytest.fixture(autouse=True, scope="module")
def _inference() -> object:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor",
    ["torch", pytest.param("fused", marks=pytest.mark.skipif(native() is None, reason="there is no C++ compiler"))],
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    asked=asks,
    page_size=st.sampled_from([1, 4, 16]),
    spare=st.floats(0.0, 2.0),
    window_pages=st.one_of(st.none(), st.integers(0, 12)),
    chunk=st.integers(1, 40),
    depth=st.integers(1, 3),
    multi=st.sampled_from([1, 3]),
    policy=st.sampled_from(["fcfs", "lpm", "dfs-weight", "priority"]),
    eviction=st.sampled_from(["lru", "lfu"]),
    starvation=st.sampled_from([3.0, 1000.0]),
    flush_every=st.sampled_from([5, 10_000]),
    cached=st.booleans(),
    most_drafts=st.sampled_from([0, 1, 5]),
    right=st.sampled_from([0.0, 0.7, 1.0]),
    seed=st.integers(0, 1000),
)
def test_tokens_are_those_of_the_model_alone(
    executor: str,
    asked: list[Ask],
    page_size: int,
    spare: float,
    window_pages: int | None,
    chunk: int,
    depth: int,
    multi: int,
    policy: str,
    eviction: str,
    starvation: float,
    flush_every: int,
    cached: bool,
    most_drafts: int,
    right: float,
    seed: int,
) -> None:
    windowed = window_pages is not None
    longest = max(len(ask.prompt) + ask.max_tokens for ask in asked)
    pages = -(-longest // page_size) + 1
    replica = Crowded(
        executor == "fused",
        page_size,
        num_pages=pages + int(pages * spare),
        drafts=guesses(windowed, asked, most_drafts, right, seed) if most_drafts else None,
        window_pages=window_pages,
        prefill_chunk=chunk,
        max_prefill_tokens=chunk,
        pipeline_depth=depth,
        max_multi_step=multi,
        multi_step_ms=0,
        policy=policy,
        eviction=eviction,
        starvation_seconds=starvation,
        prefix_cache=cached,
    )
    replica.run(asked, flush_every)
    assert replica.core.take_effects() == []
    for ask in asked:
        expected = alone(windowed, tuple(ask.prompt))[: ask.max_tokens]
        if ask.leaves is None:
            assert ask.tokens == expected
            assert ask.finish is Finish.LENGTH
        else:
            assert ask.tokens == expected[: len(ask.tokens)]

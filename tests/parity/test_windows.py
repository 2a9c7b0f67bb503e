"""Windows give pages back while a sequence runs, and nobody reads these any more: what is free is NaN here.

Small random models against transformers, prompts many times as long as the window, pools in which the pages of one
sequence must become another's.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radixmesh.local import Replica
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.layers import NativeAttention
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.torch.executor import TorchExecutor
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.group.claim import kv_groups
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import ModelFiles, open_model
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.shared.messages import Admit, Choice, Claimed, KvKind, SamplingParams, Work
from tests.checkpoints import make_checkpoint
from tests.model_worker.loaded import load_model, make_runner
from tests.model_worker.paged_driver import PagedDriver
from tests.model_worker.parity_cases import reference

COUNT = 30
CONTEXT = 400
PAGE = 4

_TEXT = [(3 * i * i + 17 * i + 200) % 509 for i in range(CONTEXT)]
PROMPTS = {
    "long": _TEXT[:210],
    "longer": _TEXT[:210] + _TEXT[300:390],  # goes on where "long" ends
    "branch": _TEXT[:120] + [7] * 50,
    "short": [11, 12, 13],
    "other": [(7 * i * i + 3 * i + 11) % 509 for i in range(160)],
}
WINDOWED: dict[str, tuple[str, dict[str, Any]]] = {
    "all": ("mistral", {"sliding_window": 24}),
    "page": ("mistral", {"sliding_window": PAGE}),
    "some": ("qwen2", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "mixed": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 31,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
needs_kernels = pytest.mark.skipif(native() is None, reason="there is no C++ compiler")
EXECUTORS = ["torch", pytest.param("native", marks=needs_kernels), pytest.param("fused", marks=needs_kernels)]


@cache
def checkpoint(case: str) -> tuple[Path, dict[str, list[int]]]:
    """A directory, and transformers' greedy tokens after each prompt."""
    path = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    family, overrides = WINDOWED[case]
    theirs = make_checkpoint(path, family, max_position_embeddings=CONTEXT, **overrides)
    return path, {name: reference(theirs, prompt, COUNT) for name, prompt in PROMPTS.items()}


@pytest.fixture(autouse=True, scope="module")
def _inference() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


class Poisoned(Replica):
    """A replica whose free pages hold NaN, if nothing is under way that was planned before they came free."""

    def __init__(self, model: CausalLM, executor: str, num_pages: list[int], **fields: Any) -> None:
        kv = KVCache(model.kv_groups(PAGE), num_pages, model.device)
        runs = FusedDecoder(model, kv) if executor == "fused" else TorchExecutor(model, kv)
        engine = Engine(
            make_runner(model, kv, executor=runs),
            max_slots=4,
            max_model_len=CONTEXT,
            page_size=PAGE,
            eos_token_ids=[],
        )
        sizes = Claimed(group_id="g", groups=kv_groups(kv), max_slots=4, max_model_len=CONTEXT, vocab_size=512)
        super().__init__(SchedulerCore(SchedulerSettings(**fields), sizes, replica_id="r", epoch=1), engine)
        self.kv = kv
        self.held: list[int] = [0] * len(kv.pools)
        """By group: the most pages that one sequence has held."""
        self._poison()

    def run(self, names: list[str]) -> dict[str, list[int]]:
        """The tokens after each of the prompts, of which one arrives with every second step."""
        tokens: dict[str, list[int]] = {name: [] for name in names}
        waiting, steps = list(names), 0
        while waiting or self.plans or not self.core.idle:
            arrived = [self._admit(waiting.pop(0))] if waiting and steps % 2 == 0 else []
            for result in self.step(arrived, float(steps)):
                assert result.failures == []
                for row in result.rows:
                    made = tokens[row.slot.request_id]
                    made[row.index :] = [row.token]
            assert self.core.check() == []
            self._count()
            if not self.core.in_flight:
                self._poison()
            steps += 1
        return tokens

    def _poison(self) -> None:
        for pool, pages in zip(self.kv.pools, self.core.replica.kv.pools, strict=True):
            for tensor in (*pool.keys, *pool.values):
                tensor[pages._free] = float("nan")

    def _count(self) -> None:
        for seq in self.core.replica.slots.sequences():
            for group, holding in enumerate(seq.held.groups):
                self.held[group] = max(self.held[group], len(holding.pages) - holding.first)

    def _admit(self, name: str) -> Admit:
        return Admit(
            request_id=name,
            attempt=0,
            gateway_id="g",
            detokenizer_id="d",
            replica_epoch=1,
            prompt_ids=np.array(PROMPTS[name], np.int32),
            work=Work(params=SamplingParams(temperature=0.0, max_tokens=COUNT)),
            choices=[Choice(index=0)],
            time_left=1e12,
        )


def load(files: ModelFiles, executor: str) -> CausalLM:
    library = native()
    attention = NativeAttention(library) if executor == "native" and library is not None else None
    return load_model(files, dtype=torch.float32, attention=attention, max_length=CONTEXT)


def plenty(model: CausalLM, window_pages: int, full_pages: int = 400) -> list[int]:
    """By group."""
    return [full_pages if spec.window is None else window_pages for spec in model.kv_groups(PAGE)]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("case", WINDOWED)
def test_tokens_equal_transformers_while_pages_change_hands(case: str, executor: str, cached: bool, depth: int) -> None:
    path, expected = checkpoint(case)
    model = load(open_model(path), executor)
    replica = Poisoned(
        model,
        executor,
        plenty(model, window_pages=24),
        prefill_chunk=16,
        max_prefill_tokens=16,
        pipeline_depth=depth,
        max_multi_step=3,
        multi_step_ms=0,
        prefix_cache=cached,
    )
    names = ["long", "short", "other", "branch", "longer", "long"]
    assert replica.run(names[:5]) == {name: expected[name] for name in names[:5]}
    assert replica.run(names[5:]) == {"long": expected["long"]}


@pytest.mark.parametrize("executor", EXECUTORS)
def test_any_mix_of_windows(executor: str) -> None:
    """Layers that see 6, 40 and all tokens, in three groups, against the same model with memory for everything."""
    path, _ = checkpoint("mixed")
    files = open_model(path)
    files = replace(files, config=replace(files.config, windows=(40, None, 6)))
    driver = PagedDriver(load(files, "torch"), 16)
    expected = {name: driver.alone(prompt, COUNT) for name, prompt in PROMPTS.items()}
    model = load(files, executor)
    assert [spec.layers for spec in model.kv_groups(PAGE)] == [(1,), (2,), (0,)]
    replica = Poisoned(model, executor, [300, 14, 40], prefill_chunk=20, max_prefill_tokens=20, pipeline_depth=1)
    assert [(group.kind, group.window) for group in kv_groups(replica.kv)] == [
        (KvKind.FULL, 0),
        (KvKind.WINDOW, 6),
        (KvKind.WINDOW, 40),
    ]
    assert replica.run(list(PROMPTS)) == expected


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_long_sequence_needs_no_more_than_its_window(executor: str) -> None:
    """210 tokens and 30 more, in a pool that holds 32."""
    path, expected = checkpoint("all")
    replica = Poisoned(load(open_model(path), "torch"), executor, [8], pipeline_depth=1)
    assert replica.run(["long"]) == {"long": expected["long"]}
    assert replica.held == [8]


def test_what_a_prefix_shares_is_what_the_windows_show() -> None:
    """The end of a conversation is found again where its middle is not; full layers keep both."""
    path, expected = checkpoint("some")
    model = load(open_model(path), "torch")
    replica = Poisoned(model, "torch", plenty(model, window_pages=12), pipeline_depth=1)
    replica.run(["long"])
    tree = replica.core.replica.kv.tree
    prompts = {name: np.array(prompt, np.int32) for name, prompt in PROMPTS.items()}
    namespace = next(iter(tree._roots))
    assert tree.cached(0) > 4 * tree.cached(1)
    assert tree.peek(prompts["branch"], namespace).pages < 120 // PAGE
    assert replica.run(["branch", "longer"]) == {name: expected[name] for name in ("branch", "longer")}

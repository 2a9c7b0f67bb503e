"""Greedy parity with transformers on an accelerator: `make test-gpu`.

The same engine, plans two deep, on the first accelerator found, with the `torch` attention.
"""

from pathlib import Path

import pytest
import torch

from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.loading import load_model, open_model
from radixmesh.services.model_worker.platform import Platform, get_platform
from radixmesh.shared.messages import SamplingParams
from tests.checkpoints import FAMILIES, make_checkpoint
from tests.model_worker.plans import Job, PlanDriver

pytestmark = pytest.mark.gpu

PROMPTS = [[5, 6, 7], list(range(20, 57)), [100], [9, 8, 7, 6, 5, 4, 3], list(range(300, 390, 3))]


@pytest.fixture(scope="module")
def platform() -> Platform:
    found = get_platform("auto")
    if found.name == "cpu":
        pytest.fail("no accelerator was found; this test is for machines that have one")
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def make_engine(path: Path, platform: Platform, dtype: torch.dtype, page_size: int) -> Engine:
    model = load_model(open_model(path), platform, dtype=dtype, max_length=128)
    runner = ModelRunner(model, KVCache(model.kv_groups(page_size), 256, platform.device), platform)
    return Engine(runner, max_slots=8, max_model_len=128, page_size=page_size, eos_token_ids=[])


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers(
    tmp_path: Path, platform: Platform, family: str, depth: int, page_size: int
) -> None:
    """Prompts in chunks while others decode; launched ahead of the tokens, and not."""
    model = make_checkpoint(tmp_path, family)
    jobs = [
        Job(prompt, SamplingParams(temperature=0.0, max_tokens=16), arrives=2 * i) for i, prompt in enumerate(PROMPTS)
    ]
    with torch.inference_mode():
        PlanDriver(make_engine(tmp_path, platform, torch.float32, page_size), chunk=11, depth=depth).run(jobs)
        for job in jobs:
            ids = torch.tensor([job.prompt])
            out = model.generate(ids, do_sample=False, max_new_tokens=16, eos_token_id=None, pad_token_id=0)
            assert job.tokens == out[0, len(job.prompt) :].tolist()


def test_draws_do_not_depend_on_launching_ahead(tmp_path: Path, platform: Platform) -> None:
    make_checkpoint(tmp_path, "llama")
    runs = []
    for depth in (0, 1):
        jobs = [
            Job(prompt, SamplingParams(temperature=0.8, top_p=0.9, seed=i, max_tokens=16))
            for i, prompt in enumerate(PROMPTS)
        ]
        with torch.inference_mode():
            PlanDriver(make_engine(tmp_path, platform, torch.float32, 16), depth=depth).run(jobs)
        runs.append([job.tokens for job in jobs])
    assert runs[0] == runs[1]

"""Greedy parity with transformers on an accelerator: `make test-gpu`.

The same engine, plans two deep, on the first accelerator found, with the `torch` attention.
"""

from pathlib import Path

import pytest
import torch

from radixmesh.services.model_worker.devices.choice import open_device
from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.loading import open_model
from radixmesh.shared.messages import SamplingParams
from tests.checkpoints import FAMILIES, make_checkpoint
from tests.model_worker.loaded import load_model, make_runner
from tests.model_worker.plans import Job, PlanDriver

pytestmark = pytest.mark.gpu

PROMPTS = [[5, 6, 7], list(range(20, 57)), [100], [9, 8, 7, 6, 5, 4, 3], list(range(300, 390, 3))]


@pytest.fixture(scope="module")
def device() -> Device:
    found = open_device("auto", index=0, threads=1)
    if found.name == "cpu":
        pytest.fail("no accelerator was found; this test is for machines that have one")
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def make_engine(path: Path, device: Device, dtype: torch.dtype, page_size: int) -> Engine:
    model = load_model(open_model(path), device, dtype=dtype, max_length=128)
    runner = make_runner(model, KVCache(model.kv_groups(page_size), 256, device.torch_device), device)
    return Engine(runner, max_slots=8, max_model_len=128, page_size=page_size, eos_token_ids=[])


@pytest.mark.parametrize("page_size", [1, 16])
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers(tmp_path: Path, device: Device, family: str, depth: int, page_size: int) -> None:
    """Prompts in chunks while others decode; launched ahead of the tokens, and not."""
    model = make_checkpoint(tmp_path, family)
    jobs = [
        Job(prompt, SamplingParams(temperature=0.0, max_tokens=16), arrives=2 * i) for i, prompt in enumerate(PROMPTS)
    ]
    with torch.inference_mode():
        PlanDriver(make_engine(tmp_path, device, torch.float32, page_size), chunk=11, depth=depth).run(jobs)
        for job in jobs:
            ids = torch.tensor([job.prompt])
            out = model.generate(ids, do_sample=False, max_new_tokens=16, eos_token_id=None, pad_token_id=0)
            assert job.tokens == out[0, len(job.prompt) :].tolist()


def test_draws_do_not_depend_on_launching_ahead(tmp_path: Path, device: Device) -> None:
    make_checkpoint(tmp_path, "llama")
    runs = []
    for depth in (0, 1):
        jobs = [
            Job(prompt, SamplingParams(temperature=0.8, top_p=0.9, seed=i, max_tokens=16))
            for i, prompt in enumerate(PROMPTS)
        ]
        with torch.inference_mode():
            PlanDriver(make_engine(tmp_path, device, torch.float32, 16), depth=depth).run(jobs)
        runs.append([job.tokens for job in jobs])
    assert runs[0] == runs[1]

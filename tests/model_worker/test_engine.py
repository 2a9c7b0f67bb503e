"""The engine against transformers: plans in, the very same tokens out."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from radixmesh.services.model_worker.devices.cpu.device import CpuDevice
from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.devices.device import Device
from radixmesh.services.model_worker.engine.engine import Engine, LaunchedStep
from radixmesh.services.model_worker.engine.outputs import StepResult, step_report, token_batches
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.loading import open_model
from radixmesh.shared.messages import Finish, SamplingParams, StepPlan
from tests.checkpoints import EOS_ID, make_checkpoint
from tests.model_worker.loaded import CPU, load_model, make_runner
from tests.model_worker.plans import Job, PlanDriver

needs_kernels = pytest.mark.skipif(native() is None, reason="there is no C++ compiler")
PROMPTS = [[5, 6, 7], list(range(20, 57)), [100], [9, 8, 7, 6, 5, 4, 3], list(range(300, 390, 3))]


def greedy(max_tokens: int | None = 12, **fields: Any) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, **{"ignore_eos": True, **fields})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("engine")
    return path, make_checkpoint(path, "llama")


def make_engine(
    path: Path,
    page_size: int = 4,
    max_model_len: int = 128,
    *,
    kernels: bool = False,
    device: Device | None = None,
    **fields: Any,
) -> Engine:
    device = device or CPU
    model = load_model(open_model(path), device, max_length=max_model_len)
    kv = KVCache(model.kv_groups(page_size), 256, device.torch_device)
    runner = make_runner(model, kv, device, FusedDecoder(model, kv) if kernels else None)
    ends = {"max_slots": 8, "eos_token_ids": [EOS_ID], **fields}
    return Engine(runner, max_model_len=max_model_len, page_size=page_size, **ends)


def reference(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(ids, do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0)
    tokens: list[int] = out[0, len(prompt) :].tolist()
    return tokens


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("chunk", [5, 64])
def test_greedy_equals_transformers(checkpoint: tuple[Path, Any], depth: int, steps: int, chunk: int) -> None:
    """Arriving one after the other, in chunks, some plans ahead or several steps at once."""
    path, model = checkpoint
    jobs = [Job(prompt, greedy(), arrives=2 * i) for i, prompt in enumerate(PROMPTS)]
    PlanDriver(make_engine(path), chunk=chunk, depth=depth, steps=steps).run(jobs)
    for job in jobs:
        assert job.tokens == reference(model, job.prompt, 12)
        assert job.finish is Finish.LENGTH
        assert [row.index for row in job.rows] == list(range(12))


@needs_kernels
@pytest.mark.parametrize("count", [1, 4, 8])
def test_the_kernels_give_the_same_tokens(checkpoint: tuple[Path, Any], count: int) -> None:
    """Long prompts at once: hundreds of rows below the last layer, a few above it."""
    path, model = checkpoint
    jobs = [Job([3 + (7 * i + j) % 500 for j in range(100)], greedy(8)) for i in range(count)]
    PlanDriver(make_engine(path, kernels=True), chunk=100).run(jobs)
    for job in jobs:
        assert job.tokens == reference(model, job.prompt, 8)


@pytest.mark.parametrize("depth", [0, 1])
def test_ends_are_exact(checkpoint: tuple[Path, Any], depth: int) -> None:
    path, model = checkpoint
    expected = reference(model, PROMPTS[1], 12)
    stop = expected[4]
    first = expected.index(stop)
    jobs = [
        Job(PROMPTS[1], greedy(stop_token_ids=[stop])),
        Job(PROMPTS[1], greedy(stop_token_ids=[stop], min_tokens=12)),
        Job(PROMPTS[1], greedy(max_tokens=1)),
        Job(PROMPTS[1], greedy(max_tokens=None)),
    ]
    PlanDriver(make_engine(path, max_model_len=64), depth=depth).run(jobs)
    stopped, barred, single, full = jobs
    assert stopped.tokens == expected[: first + 1]
    assert (stopped.finish, stopped.rows[-1].stop_token) == (Finish.STOP, stop)
    assert stop not in barred.tokens[:11]
    assert len(barred.tokens) == 12
    assert (single.tokens, single.finish) == (expected[:1], Finish.LENGTH)
    assert len(full.tokens) == 64 - len(PROMPTS[1])


def test_eos_ends_unless_ignored(checkpoint: tuple[Path, Any]) -> None:
    path, model = checkpoint
    expected = reference(model, PROMPTS[0], 12)
    jobs = [Job(PROMPTS[0], greedy(ignore_eos=False)), Job(PROMPTS[0], greedy(ignore_eos=True))]
    PlanDriver(make_engine(path, eos_token_ids=[expected[3]])).run(jobs)
    assert jobs[0].tokens == expected[: expected.index(expected[3]) + 1]
    assert (jobs[0].finish, jobs[0].rows[-1].stop_token) == (Finish.STOP, -1)
    assert jobs[1].tokens == expected


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_resumed_sequence_goes_on_as_if_never_cut(checkpoint: tuple[Path, Any], cut: int) -> None:
    path, _model = checkpoint
    for params in (greedy(), SamplingParams(temperature=1.0, seed=7, max_tokens=12, ignore_eos=True)):
        whole = Job(PROMPTS[1], params, choice=3)
        PlanDriver(make_engine(path)).run([whole])
        rest = Job(PROMPTS[1], params, resumed=whole.tokens[:cut], choice=3)
        PlanDriver(make_engine(path), chunk=7).run([rest])
        assert rest.tokens == whole.tokens[cut:]
        assert rest.rows[0].index == cut


def test_penalties_and_draws_do_not_depend_on_company(checkpoint: tuple[Path, Any]) -> None:
    path, _model = checkpoint
    params = [
        SamplingParams(temperature=0.9, top_p=0.9, seed=1, max_tokens=10, ignore_eos=True),
        SamplingParams(temperature=1.1, top_k=20, frequency_penalty=0.7, seed=2, max_tokens=10, ignore_eos=True),
        SamplingParams(temperature=0.0, repetition_penalty=1.3, max_tokens=10, ignore_eos=True),
        greedy(10, logit_bias={17: 100.0}),
        greedy(10, logprobs=3),
    ]
    together = [Job(prompt, p, arrives=i) for i, (prompt, p) in enumerate(zip(PROMPTS, params, strict=True))]
    PlanDriver(make_engine(path), depth=1).run(together)
    for i, job in enumerate(together):
        alone = Job(PROMPTS[i], params[i])
        PlanDriver(make_engine(path)).run([alone])
        assert alone.tokens == job.tokens
    assert together[3].tokens == [17] * 10
    assert all(len(row.top) == 3 and row.top[0] == (row.token, row.logprob) for row in together[4].rows)


def test_an_admission_that_does_not_fit_fails_alone(checkpoint: tuple[Path, Any]) -> None:
    path, model = checkpoint
    jobs = [Job([1] * 64, greedy()), Job(PROMPTS[0], greedy())]
    PlanDriver(make_engine(path, max_model_len=64)).run(jobs)
    assert jobs[0].failure == "a prompt of 64 tokens does not fit a context of 64"
    assert jobs[1].tokens == reference(model, PROMPTS[0], 12)


def test_logits_that_are_not_finite_fail_their_sequence_alone(checkpoint: tuple[Path, Any]) -> None:
    path, model = checkpoint
    engine = make_engine(path)
    poisoned = 499
    with torch.no_grad():
        engine.runner.model.model.embed_tokens.weight[poisoned] = float("nan")
    jobs = [Job([5, poisoned], greedy()), Job(PROMPTS[0], greedy())]
    PlanDriver(engine).run(jobs)
    assert jobs[0].failure == "the model's logits are not finite"
    if not model.config.tie_word_embeddings:
        assert jobs[1].tokens == reference(model, PROMPTS[0], 12)


def test_a_failing_forward_pass_ends_its_sequences_and_not_the_engine(
    checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = checkpoint
    engine = make_engine(path)
    run = engine.runner.run

    def broken(*_: object) -> None:
        raise RuntimeError("device lost a bit")

    monkeypatch.setattr(engine.runner, "run", broken)
    failed = Job(PROMPTS[0], greedy())
    driver = PlanDriver(engine)
    driver.run([failed])
    assert failed.failure == "the forward pass failed: RuntimeError"
    monkeypatch.setattr(engine.runner, "run", run)
    fine = Job(PROMPTS[0], greedy())
    driver.run([fine])
    assert fine.tokens == reference(model, PROMPTS[0], 12)


class LostDevice(CpuDevice):
    """A device that has reported an error which stays, as CUDA's do behind a failed assertion."""

    def synchronize(self) -> None:
        raise RuntimeError("the device has failed before")


@pytest.mark.parametrize("where", ["run", "sampling_row"])
def test_a_device_that_works_no_more_ends_the_engine(
    checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Else it would fail whatever comes, for ever, and nobody would start it again."""
    engine = make_engine(checkpoint[0], device=LostDevice())

    def broken(*_: object) -> None:
        raise RuntimeError("an assertion failed on the device")

    monkeypatch.setattr(engine.runner, where, broken)
    with pytest.raises(RuntimeError, match="an assertion failed"):
        PlanDriver(engine).run([Job(PROMPTS[0], greedy())])


@contextmanager
def memory_left(size: int) -> Iterator[None]:
    """The process may take `size` more bytes, whatever the machine has."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=needs_kernels)])
def test_a_step_without_memory_ends_its_sequences_and_not_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: bool
) -> None:
    """Twice, because what a failure leaves behind must not be in the next one's way."""
    model = make_checkpoint(tmp_path, "llama", max_position_embeddings=200_100)
    engine = make_engine(tmp_path, page_size=1024, max_model_len=200_100, kernels=kernels)
    launch = engine.launch

    def launch_in_little(plan: StepPlan, *, first: bool) -> LaunchedStep:
        with memory_left(4 << 20):
            return launch(plan, first=first)

    driver = PlanDriver(engine, chunk=200_000)
    for _ in range(2):
        failed, fine = Job([1] * 200_000, greedy()), Job(PROMPTS[0], greedy())
        with monkeypatch.context() as patch:
            patch.setattr(engine, "launch", launch_in_little)
            driver.run([failed])
        assert failed.failure == "the forward pass failed: out of memory"
        driver.run([fine])
        assert fine.tokens == reference(model, PROMPTS[0], 12)


def test_a_sequence_without_room_fails_alone(checkpoint: tuple[Path, Any]) -> None:
    """Its own record does not fit: the context is longer than any memory."""
    path, model = checkpoint
    engine = make_engine(path)
    engine.max_model_len = 1 << 50
    jobs = [Job(PROMPTS[1], greedy(max_tokens=None)), Job(PROMPTS[0], greedy())]
    PlanDriver(engine).run(jobs)
    assert jobs[0].failure == "the sequence could not be admitted: out of memory"
    assert jobs[1].tokens == reference(model, PROMPTS[0], 12)


@pytest.mark.parametrize(
    "error", [MemoryError("no"), torch.OutOfMemoryError("CUDA out of memory"), ArithmeticError(), OSError("no device")]
)
def test_what_ends_a_batch_and_what_the_worker(
    checkpoint: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = make_engine(checkpoint[0])

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(engine.runner, "run", broken)
    job = Job(PROMPTS[0], greedy())
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="no device"):
            PlanDriver(engine).run([job])
    else:
        PlanDriver(engine).run([job])
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        assert job.failure == f"the forward pass failed: {'out of memory' if memory else 'ArithmeticError'}"


def test_outputs_are_grouped_by_detokenizer_and_joined_by_plan(checkpoint: tuple[Path, Any]) -> None:
    path, _model = checkpoint
    jobs = [Job(PROMPTS[0], greedy(3)), Job(PROMPTS[2], greedy(3))]
    PlanDriver(make_engine(path)).run(jobs)
    rows = [row for job in jobs for row in job.rows]
    rows[0].slot.detokenizer_id = "other"
    batches = dict(token_batches([StepResult([rows[0], rows[3]])], "r0", 9, {}))
    assert batches["other"].tokens.tolist() == [rows[0].token]
    assert batches["d"].first_index.tolist() == [0]
    plan = StepPlan(epoch=9, seq=4, span_slots=[1, 7, 0])
    report = step_report(plan, [StepResult([rows[0], rows[3]]), StepResult([rows[1]]), StepResult([rows[2]])], 5, 1)
    assert (report.epoch, report.seq) == (9, 4)
    assert report.accepted.tolist() == [1, 0, 3]
    assert report.tokens.tolist() == [rows[3].token, *jobs[0].tokens]
    assert report.finish.tolist() == [Finish.RUNNING, Finish.RUNNING, Finish.LENGTH]
    assert np.array_equal(report.failed_slots, [])

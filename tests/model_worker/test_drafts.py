"""Drafts: whatever is guessed, the same tokens, ends and log-probabilities; in fewer passes where guesses are right."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radixmesh.services.model_worker.devices.cpu.fused import FusedDecoder
from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.services.model_worker.engine.drafts import DraftSource
from radixmesh.services.model_worker.engine.engine import Engine
from radixmesh.services.model_worker.engine.runner import ModelRunner
from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.services.model_worker.engine.step_loop import StepLoop, StepOutput
from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.services.model_worker.models.loading import open_model
from radixmesh.services.model_worker.sampling.columns import SamplingBatch
from radixmesh.shared.messages import Admission, Finish, SamplingParams, Span, StepPlan, Work
from tests.checkpoints import EOS_ID, make_checkpoint
from tests.model_worker.guesses import GivenDrafts
from tests.model_worker.loaded import CPU, load_model, make_runner
from tests.model_worker.plans import Job, PlanDriver, columns, i32

needs_kernels = pytest.mark.skipif(native() is None, reason="there is no C++ compiler")
executors = pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=needs_kernels)])
LENGTH = 14
PARAMS = {
    "greedy": SamplingParams(temperature=0.0, max_tokens=LENGTH, ignore_eos=True),
    "drawn": SamplingParams(temperature=1.0, top_p=0.95, seed=11, max_tokens=LENGTH, ignore_eos=True),
    "penalized": SamplingParams(
        temperature=0.0, repetition_penalty=1.4, frequency_penalty=0.6, presence_penalty=0.3, max_tokens=LENGTH,
        ignore_eos=True,
    ),
    "drawn and penalized": SamplingParams(
        temperature=1.2, top_k=40, min_p=0.01, frequency_penalty=1.5, seed=5, max_tokens=LENGTH, ignore_eos=True
    ),
    "barred": SamplingParams(temperature=0.0, min_tokens=9, max_tokens=LENGTH, logit_bias={EOS_ID: 4.0}),
    "logprobs": SamplingParams(temperature=0.8, seed=3, logprobs=2, max_tokens=LENGTH, ignore_eos=True),
}  # fmt: skip
PROMPTS = [[5, 6, 7], list(range(20, 57)), [100], [9, 8, 7, 6, 5, 4, 3] * 3]


@pytest.fixture(scope="module", params=["qwen3", "windows"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of full attention, and of windows that are shorter than the prompts."""
    folder = tmp_path_factory.mktemp("drafts")
    if request.param == "windows":
        make_checkpoint(folder, "mistral", sliding_window=9)
    else:
        make_checkpoint(folder, "qwen3")
    return folder


@cache
def runner(path: Path, kernels: bool) -> ModelRunner:
    model = load_model(open_model(path), max_length=128)
    kv = KVCache(model.kv_groups(4), 256, CPU.torch_device)
    return make_runner(model, kv, executor=FusedDecoder(model, kv) if kernels else None)


def engine(path: Path, kernels: bool, drafts: DraftSource | None = None) -> Engine:
    unit = runner(path, kernels)
    return Engine(unit, max_slots=8, max_model_len=128, page_size=4, eos_token_ids=[EOS_ID], drafts=drafts)


@cache
def without(path: Path, kernels: bool, kind: str, prompt: int) -> Job:
    """A sequence that runs alone, and without drafts."""
    job = Job(PROMPTS[prompt], PARAMS[kind])
    PlanDriver(engine(path, kernels)).run([job])
    return job


Guess = Callable[[Slot], Sequence[int]]


def by_prompt(told: dict[tuple[int, ...], list[int]], spoil: Callable[[list[int]], list[int]]) -> Guess:
    """Guesses what each prompt is known to give, spoilt."""

    def guess(slot: Slot) -> Sequence[int]:
        known = told[(slot.prompt_len, int(slot.tokens[0]))]
        return spoil(known[slot.output_len :])

    return guess


def same(job: Job, other: Job) -> None:
    assert job.tokens == other.tokens
    assert [row.index for row in job.rows] == list(range(len(job.rows)))
    ends = [[(row.finish, row.stop_token) for row in one.rows] for one in (job, other)]
    assert ends[0] == ends[1]
    for row, known in zip(job.rows, other.rows, strict=True):
        assert math.isnan(row.logprob) == math.isnan(known.logprob)
        assert row.logprob == pytest.approx(known.logprob, abs=1e-3, nan_ok=True)
        assert [token for token, _ in row.top] == [token for token, _ in known.top]


@pytest.mark.slow
@executors
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(sorted(PARAMS)), min_size=len(PROMPTS), max_size=len(PROMPTS)),
    right=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    most=st.integers(1, 6),
    depth=st.integers(0, 1),
    steps=st.sampled_from([1, 1, 3]),
    chunk=st.sampled_from([5, 64]),
    seed=st.integers(0, 2**32),
)
def test_no_guess_changes_what_is_said(
    path: Path, kernels: bool, kinds: list[str], right: float, most: int, depth: int, steps: int, chunk: int, seed: int
) -> None:
    """Right, wrong and partly right ones, of any number, for some sequences and at some steps."""
    random = np.random.default_rng(seed)
    alone = [without(path, kernels, kind, prompt) for prompt, kind in enumerate(kinds)]
    told: dict[tuple[int, ...], list[int]] = {(len(job.prompt), job.prompt[0]): job.tokens for job in alone}

    def spoil(tokens: list[int]) -> list[int]:
        guessed = [token if random.random() < right else int(random.integers(512)) for token in tokens]
        return guessed[: int(random.integers(0, most + 3))]

    source = GivenDrafts(most, by_prompt(told, spoil))
    held = engine(path, kernels, source)
    jobs = [Job(job.prompt, job.params, arrives=2 * i) for i, job in enumerate(alone)]
    PlanDriver(held, chunk=chunk, depth=depth, steps=steps).run(jobs)
    for job, other in zip(jobs, alone, strict=True):
        same(job, other)
    assert not held.running()
    held.reset(0)
    assert not source.known  # nothing is kept of sequences that are over


@executors
@pytest.mark.parametrize(("right", "passes"), [(True, 4), (False, LENGTH)])
def test_right_guesses_save_passes_and_wrong_ones_cost_none(
    path: Path, kernels: bool, right: bool, passes: int
) -> None:
    """Behind the prompt too: its last chunk verifies what may follow it."""
    alone = without(path, kernels, "greedy", 1)
    source = GivenDrafts(3, lambda slot: [(t + (not right)) % 512 for t in alone.tokens[slot.output_len :]])
    driver = PlanDriver(engine(path, kernels, source))
    job = Job(alone.prompt, alone.params)
    driver.run([job])
    same(job, alone)
    assert driver.passes == passes
    assert source.proposed > 9


@pytest.mark.parametrize("cut", range(1, 9))
def test_an_answer_ends_inside_of_accepted_drafts(path: Path, cut: int) -> None:
    """By its length, by a stop token and by the end of the context: right guesses behind the end are no tokens."""
    alone = without(path, False, "greedy", 1)
    stop = alone.tokens[cut]
    source = GivenDrafts(5, lambda slot: alone.tokens[slot.output_len :])
    short, stopped = (
        Job(alone.prompt, alone.params.model_copy(update=update))
        for update in ({"max_tokens": cut}, {"stop_token_ids": [stop]})
    )
    full = Job(alone.prompt, alone.params.model_copy(update={"max_tokens": None}))
    held = engine(path, False, source)
    held.max_model_len = len(alone.prompt) + cut
    PlanDriver(held).run([full])
    PlanDriver(engine(path, False, source)).run([short, stopped])
    assert short.tokens == full.tokens == alone.tokens[:cut]
    assert short.finish is full.finish is Finish.LENGTH
    assert stopped.tokens == alone.tokens[: alone.tokens.index(stop) + 1]
    assert (stopped.finish, stopped.rows[-1].stop_token) == (Finish.STOP, stop)


def test_tokens_that_are_no_numbers_fail_behind_those_that_are(path: Path) -> None:
    """What stands before the first token that cannot be chosen is said, as without drafts."""
    alone = without(path, False, "greedy", 0)
    held = engine(path, False, GivenDrafts(4, lambda slot: alone.tokens[slot.output_len :]))
    sample = held.runner._sampler.sample

    def broken(logits: torch.Tensor, batch: SamplingBatch, positions: np.ndarray) -> object:
        logits[torch.from_numpy(positions >= 3)] = float("nan")
        return sample(logits, batch, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held.runner._sampler, "sample", broken)
        job = Job(alone.prompt, alone.params)
        PlanDriver(held).run([job])
    assert (job.tokens, job.failure) == (alone.tokens[:3], "the model's logits are not finite")


def test_a_sequence_whose_drafts_are_not_decided_is_left_out(path: Path) -> None:
    """And goes on in the next pass, so that a worker's thread that collects each gets its tokens from every one."""
    alone = without(path, False, "greedy", 0)
    held = engine(path, False, GivenDrafts(2, lambda slot: alone.tokens[slot.output_len :]))
    admission = Admission(
        slot=0, request_id="r", choice=0, attempt=0, detokenizer_id="d", prompt_ids=i32(*alone.prompt),
        work=Work(params=alone.params),
    )  # fmt: skip
    grant = {
        "grant_slots": [0],
        "grant_groups": [0],
        "grant_starts": [0],
        "grant_counts": [5],
        "grant_pages": [0, 1, 2, 3, 4],
    }
    spans = [Span(0, 0, len(alone.prompt), True, 2), *(Span(0, start, 1, True, 2) for start in (5, 8, 11, 14))]
    plans = [StepPlan(epoch=1, seq=seq, **columns(span)) for seq, span in enumerate(spans)]
    plans[0] = plans[0].model_copy(update={"admissions": [admission], **{k: np.array(v) for k, v in grant.items()}})
    first, second = (held.launch(plan) for plan in plans[:2])
    assert (len(first.sampling), second.sampling) == (1, [])
    assert [row.token for row in held.collect(first).rows] == alone.tokens[:3]
    held.reset(0)

    outputs: list[StepOutput] = []
    loop = StepLoop(held, None, outputs.append, pytest.fail, depth=0)  # type: ignore[arg-type]  # one process has no order
    for plan in plans:
        loop._step(plan)
    reports = [output.report for output in outputs if output.report]
    assert np.concatenate([report.accepted for report in reports]).tolist() == [3, 3, 3, 3, 2]
    assert np.concatenate([report.tokens for report in reports]).tolist() == alone.tokens


def test_pages_bound_the_drafts(path: Path) -> None:
    alone = without(path, False, "greedy", 0)
    held = engine(path, False, GivenDrafts(6, lambda slot: alone.tokens[slot.output_len :]))
    driver = PlanDriver(held)
    plan = driver._plan(0, {
        "releases": [], "admissions": [driver._admission(0, Job(alone.prompt, alone.params))], "grants": [(0, 0, 9)],
        "spans": [Span(0, 0, 3, True, 6)],
    })  # fmt: skip
    rows = held.collect(held.launch(plan)).rows
    assert [row.token for row in rows] == alone.tokens[:2]  # a page of four: the prompt's three, and one draft
    slot = rows[0].slot
    assert (slot.launched, slot.accepted) == (4, 5)


def test_without_a_source_there_are_no_drafts(path: Path) -> None:
    held = engine(path, False)
    assert held.drafts.most == 0
    assert list(held.drafts.propose([])) == []
    job = Job(PROMPTS[0], PARAMS["greedy"])
    driver = PlanDriver(held)
    driver.run([job])
    assert driver.passes == LENGTH

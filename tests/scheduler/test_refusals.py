"""What the scheduler refuses, and by which name."""

import pytest

from radixmesh.services.scheduler.planning.plan_builder import admission_bytes
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Finish, SamplingParams, Task, Work, pack
from tests.scheduler.harness import Harness, admit_message, prompt, sizes
from tests.scheduler.simulator import VOCAB


@pytest.mark.parametrize(
    ("tokens", "code", "words"),
    [
        ([], ErrorCode.INVALID_REQUEST, "no tokens"),
        ([5, VOCAB], ErrorCode.INVALID_REQUEST, str(VOCAB)),
        ([5, -1], ErrorCode.INVALID_REQUEST, "-1"),
        (range(1, 257), ErrorCode.CONTEXT_LENGTH_EXCEEDED, "256 tokens"),
    ],
)
def test_a_prompt_that_can_never_run_is_refused(tokens: list[int], code: ErrorCode, words: str) -> None:
    harness = Harness()
    with pytest.raises(RequestError, match=words) as caught:
        harness.admit(admit_message("a", list(tokens)))
    assert caught.value.code is code
    assert caught.value.param == "prompt"
    assert harness.core.idle


def test_a_prompt_larger_than_the_memory_is_refused_by_that_name() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=8, max_model_len=256))
    with pytest.raises(RequestError, match=r"33 tokens.*KV memory, 33 tokens"):
        harness.admit(admit_message("a", prompt(0, 33)))
    harness.admit(admit_message("b", prompt(0, 32), max_tokens=None))
    harness.run()
    harness.verify()


def test_memory_ends_an_output_that_it_cannot_hold() -> None:
    harness = Harness(claimed=sizes(page_size=4, num_pages=8, max_model_len=256))
    harness.admit(admit_message("a", prompt(0, 10), max_tokens=200, ignore_eos=True))
    harness.run()
    outcome = harness.outcomes["a", 0]
    assert (len(outcome.tokens), outcome.finish) == (23, Finish.LENGTH)


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.GENERATE])
def test_a_task_that_nothing_answers_is_refused_by_its_name(task: Task) -> None:
    harness = Harness()
    with pytest.raises(RequestError, match=task.value) as caught:
        harness.admit(admit_message("a", prompt(0, 20), task=task))
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert harness.core.idle


def test_a_prompt_too_long_for_one_plan_fails_and_others_go_on() -> None:
    harness = Harness(claimed=sizes(num_pages=1024, max_model_len=4000))
    harness.core._planner._max_bytes = 4000
    harness.admit(admit_message("long", prompt(0, 2000)))
    harness.admit(admit_message("short", prompt(1, 20)))
    harness.run()
    harness.verify()
    assert [effect.message.code for effect in harness.failures()] == [ErrorCode.REQUEST_TOO_LARGE]


@pytest.mark.parametrize(
    "work",
    [
        Work(),
        Work(cache_salt="s" * 600, lora="l" * 100),
        Work(params=SamplingParams(stop=["é" * 500] * 8, stop_token_ids=list(range(900)), logit_bias={2**40: 0.5})),
        Work(params=SamplingParams(logit_bias=dict.fromkeys(range(300), 1.0))),
    ],
)
def test_an_admission_takes_no_more_than_was_reckoned_for_it(work: Work) -> None:
    harness = Harness()
    message = admit_message("r" * 32, prompt(0, 20))
    harness.admit(message.model_copy(update={"work": work, "detokenizer_id": "detokenizer-" * 5}))
    (seq,) = harness.core.state.queue
    harness.pump()
    plan = harness.plans[0]
    assert len(pack(plan)) - len(pack(plan.model_copy(update={"admissions": []}))) <= admission_bytes(seq)
    assert plan.admissions[0].work == work


def test_plans_stay_within_their_bytes() -> None:
    harness = Harness(claimed=sizes(num_pages=512, max_slots=8))
    harness.core._planner._max_bytes = 4000
    for i in range(8):
        harness.admit(admit_message(f"r{i}", prompt(i, 150)))
    harness.pump()
    assert [len(plan.admissions) for plan in harness.plans] == [2, 2]
    harness.run()
    harness.verify()

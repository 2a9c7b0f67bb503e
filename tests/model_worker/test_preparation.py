"""What a rank prepares for sequences that have no slot yet, without a bus."""

import threading

import pytest

from radixmesh.services.model_worker.engine.preparation import Job, PreparationThreads, PreparedResults
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Prepare, Prepared, Work
from tests.model_worker.preparers import SleepingPreparer


def asked(number: int, lora: str, *, replaces: int = -1, epoch: int = 5, kind: str = "lora") -> Prepare:
    return Prepare(epoch=epoch, number=number, replica_id="r", kind=kind, work=Work(lora=lora), replaces=replaces)


def run(job: Job | None) -> Prepared:
    assert job is not None
    return job()


def test_a_result_is_found_by_the_work_that_needs_it() -> None:
    results = PreparedResults([SleepingPreparer(3)], rank=1)
    assert results.kinds == {"lora": 3}
    answer = run(results.ask(asked(0, "a")))
    assert (answer.epoch, answer.number, answer.rank, answer.code) == (5, 0, 1, None)
    assert results.of(Work(lora="a", priority=3)) == {"lora": "adapter a"}
    assert results.of(Work()) == {}
    with pytest.raises(ValueError, match="lora 'b' has not been prepared"):
        results.of(Work(lora="b"))


def test_asked_again_it_answers_again_and_does_nothing_twice() -> None:
    preparer = SleepingPreparer()
    results = PreparedResults([preparer])
    job = results.ask(asked(0, "a"))
    assert results.ask(asked(0, "a")) is None, "it is under way"
    first = run(job)
    assert run(results.ask(asked(0, "a"))) == first
    failed = run(results.ask(asked(1, "bad")))
    assert run(results.ask(asked(1, "bad"))) == failed
    assert preparer.begun == ["a", "bad"]


def test_what_is_replaced_is_forgotten() -> None:
    preparer = SleepingPreparer()
    results = PreparedResults([preparer])
    run(results.ask(asked(0, "a")))
    run(results.ask(asked(1, "bad", replaces=0)))
    assert preparer.forgotten == ["adapter a"]
    run(results.ask(asked(2, "b", replaces=1)))
    run(results.ask(asked(2, "b", replaces=1)))  # sent again
    assert preparer.forgotten == ["adapter a"], "what has failed gives nothing to forget"
    with pytest.raises(ValueError, match="'a'"):
        results.of(Work(lora="a"))
    run(results.ask(asked(3, "a")))
    run(results.ask(asked(2, "b", replaces=1)))
    assert results.of(Work(lora="a")) == {"lora": "adapter a"}, "numbers are replaced, not keys"


def test_a_refusal_is_told_as_it_is_and_a_fault_without_its_text() -> None:
    results = PreparedResults([SleepingPreparer()])
    bad, broken = run(results.ask(asked(0, "bad"))), run(results.ask(asked(1, "broken")))
    assert (bad.code, bad.message, bad.param) == (ErrorCode.INVALID_REQUEST, "there is no adapter 'bad'", "lora")
    assert broken.code is ErrorCode.INTERNAL
    assert "secret" not in broken.message
    assert "lora" in broken.message


@pytest.mark.parametrize("message", [asked(0, "a", kind="grammar"), asked(0, "")])
def test_what_nobody_here_prepares_is_answered_all_the_same(message: Prepare) -> None:
    answer = run(PreparedResults([SleepingPreparer()]).ask(message))
    assert (answer.number, answer.code) == (0, ErrorCode.INTERNAL)


def test_a_new_epoch_starts_from_nothing() -> None:
    preparer = SleepingPreparer()
    results = PreparedResults([preparer])
    run(results.ask(asked(0, "a")))
    slow = results.ask(asked(1, "b"))
    assert run(results.ask(asked(0, "c", epoch=6))).epoch == 6
    results.forget_before(5)
    assert preparer.forgotten == [], "a step of that epoch may be under way"
    results.forget_before(6)
    assert preparer.forgotten == ["adapter a"]
    assert results.ask(asked(2, "d")) is None, "of an epoch that has ended"
    assert run(slow).epoch == 5
    assert preparer.forgotten == ["adapter a", "adapter b"]
    for gone in ("a", "b"):
        with pytest.raises(ValueError, match=gone):
            results.of(Work(lora=gone))
    results.begin(7)
    results.forget_before(7)
    results.forget_before(7)
    assert preparer.forgotten == ["adapter a", "adapter b", "adapter c"]


def test_jobs_run_beside_each_other_on_so_many_threads() -> None:
    together, answers, done = threading.Barrier(2), [], threading.Semaphore(0)
    running: set[int] = set()
    most = 0

    def answer(message: Prepare, prepared: Prepared) -> None:
        answers.append((message.number, prepared.number))
        done.release()

    def job(number: int) -> Prepared:
        nonlocal most
        running.add(number)
        most = max(most, len(running))
        if number < 2:
            together.wait(20)  # neither comes further alone
        running.discard(number)
        return Prepared(epoch=5, number=number)

    threads = PreparationThreads(answer, threads=2)
    for number in range(6):
        threads.run(asked(number, "a"), lambda number=number: job(number))  # type: ignore[misc]
    for _ in range(6):
        assert done.acquire(timeout=20)
    assert sorted(answers) == [(number, number) for number in range(6)]
    assert most == 2
    threads.stop()


def test_nothing_is_answered_behind_the_end() -> None:
    preparer, answers = SleepingPreparer(), []
    results = PreparedResults([preparer])
    threads = PreparationThreads(lambda *answer: answers.append(answer), threads=1)
    ended = threading.Event()

    def job(inner: Job | None) -> Prepared:
        answer = run(inner)
        ended.set()
        return answer

    slow, behind = results.ask(asked(0, "slow")), results.ask(asked(1, "behind"))
    threads.run(asked(0, "slow"), lambda: job(slow))
    threads.run(asked(1, "behind"), lambda: job(behind))
    threads.stop()
    preparer.wake.set()
    assert ended.wait(20)
    assert preparer.begun == ["slow"]
    assert not answers

"""Requests that need something prepared: they wait without a slot, others pass, and the group is asked once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.services.scheduler.intake import new_sequences
from radixmesh.services.scheduler.mesh.load import load_attributes
from radixmesh.services.scheduler.mesh.pairing import wrong_sizes
from radixmesh.services.scheduler.queue.policies import Policy
from radixmesh.services.scheduler.queue.preparation import ASK_AGAIN, SCAN, Preparations
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Need, Prepare, Prepared, Work
from tests.scheduler.harness import EPOCH, Harness, admit_message, options, prompt, running, sizes
from tests.scheduler.sim_preparation import SimPreparations


def needy(loras: int = 2, *, ranks: int = 1, max_slots: int = 4, num_pages: int = 64, **changes: object) -> Harness:
    return Harness(options(**changes), sizes(loras=loras, ranks=ranks, max_slots=max_slots, num_pages=num_pages))


def ask(harness: Harness, name: str, lora: str = "", **fields: object) -> None:
    message = admit_message(name, prompt(len(harness.admits), 8), lora=lora, ignore_eos=True, **fields)  # type: ignore[arg-type]
    harness.admit(message)


def step(harness: Harness) -> None:
    harness.pump()
    harness.work()
    harness.deliver()


def asked(harness: Harness) -> list[str]:
    """Keys of what is being prepared."""
    return [message.work.lora for message in harness.worker.preparations.asked.values()]


def failures(harness: Harness) -> dict[str, ErrorCode]:
    return {effect.message.request_id: effect.message.code for effect in harness.failures()}


# -- waiting --


def test_who_waits_for_a_preparation_has_neither_slot_nor_pages_and_others_pass() -> None:
    harness = needy(max_slots=2)
    ask(harness, "needy", "a", max_tokens=4)
    for name in ("one", "two", "three"):
        ask(harness, name, max_tokens=4)
    for _ in range(20):
        step(harness)
    assert {row.request_id for row in harness.worker.rows} == {"one", "two", "three"}
    assert (harness.core.replica.slots.running, harness.core.replica.queue.preparing) == (0, 1)
    assert harness.core.flush()[1] == 0, "pages are held"
    assert not harness.core.idle
    harness.prepare()
    step(harness)
    assert running(harness) == {"needy"}
    harness.run()
    harness.verify()


def test_it_counts_as_waiting_and_is_told() -> None:
    harness = needy(max_slots=1, max_queued_requests=1)
    ask(harness, "a", "a")
    ask(harness, "b", "b")
    with pytest.raises(RequestError) as caught:
        ask(harness, "c", "c")
    assert caught.value.code is ErrorCode.QUEUE_FULL
    told = load_attributes(harness.core.replica)
    assert (told["waiting"], told["preparing"], told["prepared"]) == (2, 2, 0)
    harness.run()
    told = load_attributes(harness.core.replica)
    assert (told["waiting"], told["preparing"], told["prepared"], told["prepare_failures"]) == (0, 0, 2, 0)


def test_once_prepared_it_is_in_its_old_place() -> None:
    harness = needy(max_slots=1)
    ask(harness, "first", max_tokens=6)
    step(harness)
    ask(harness, "needy", "a", max_tokens=2)
    ask(harness, "behind", max_tokens=2)
    harness.pump()
    harness.prepare()
    harness.run()
    assert list(dict.fromkeys(row.request_id for row in harness.worker.rows)) == ["first", "needy", "behind"]


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "dfs-weight", "priority"])
def test_no_policy_lets_it_hold_up_the_rest(policy: str) -> None:
    harness = needy(max_slots=1, policy=policy, starvation_seconds=1.0)
    ask(harness, "low", max_tokens=20)
    step(harness)
    ask(harness, "needy", "a", max_tokens=2, priority=100)
    ask(harness, "other", max_tokens=2, priority=1)
    harness.now = 5.0
    harness.core.tick(harness.now)  # it goes first now, and preempts nobody as long as it cannot run
    for _ in range(60):
        step(harness)
    assert {row.request_id for row in harness.worker.rows} == {"low", "other"}
    assert harness.core.replica.counters.retracted == 0
    harness.run()
    harness.verify()


def test_decodes_go_on_by_several_steps_while_somebody_is_prepared() -> None:
    harness = needy(max_multi_step=8)
    ask(harness, "runs", max_tokens=40)
    ask(harness, "needy", "a")
    for _ in range(3):
        step(harness)
    assert harness.plans[-1].steps == 8 if harness.plans else harness.core.in_flight[-1].steps == 8
    assert harness.core.plan_delay(harness.now) > 0 or len(harness.core.in_flight) == 2


# -- asking --


def test_the_group_is_asked_once_for_all_who_need_the_same() -> None:
    harness = needy()
    for i in range(3):
        ask(harness, f"r{i}", "a", n=2, max_tokens=3)
    harness.run()
    ask(harness, "late", "a", max_tokens=3)
    harness.run()
    harness.verify()
    assert harness.worker.preparations.counts == {"a": 1}


def test_what_is_asked_for_says_no_more_than_it_must() -> None:
    harness = needy()
    ask(harness, "r", "a", priority=5, salt="secret")
    (message,) = iter(lambda: harness.core.next_prepare(0.0), None)
    assert message == Prepare(epoch=EPOCH, number=0, replica_id="r", kind="lora", work=Work(lora="a"))


def test_the_least_recently_used_gives_its_place() -> None:
    harness = needy(loras=2)
    for name, lora in (("r0", "a"), ("r1", "b"), ("r2", "a"), ("r3", "c"), ("r4", "a"), ("r5", "b")):
        ask(harness, name, lora, max_tokens=3)
        harness.run()
    assert harness.worker.preparations.counts == {"a": 1, "b": 2, "c": 1}
    harness.verify()


def test_a_result_in_use_is_not_replaced_before_its_last_plan_is_reported() -> None:
    harness = needy(loras=1)
    ask(harness, "r0", "a", max_tokens=30)
    harness.pump()
    harness.prepare()
    step(harness)
    ask(harness, "r1", "b", max_tokens=3)
    step(harness)
    assert not asked(harness)
    harness.cancel("r0")
    harness.pump()
    assert harness.plans
    assert not asked(harness), "plans under way may still use it"
    while harness.work() or harness.deliver():
        pass
    harness.pump()
    assert asked(harness) == ["b"]
    harness.run()
    harness.verify()


def test_whoever_waits_long_for_a_place_is_not_passed_for_ever() -> None:
    harness = needy(loras=1, max_slots=8, starvation_seconds=10.0)
    ask(harness, "a0", "a", max_tokens=12)
    harness.pump()
    harness.prepare()
    ask(harness, "b", "b", max_tokens=2)
    for number in range(1, 60):  # there is always one that uses the only place
        ask(harness, f"a{number}", "a", max_tokens=12)
        for _ in range(3):
            step(harness)
        harness.prepare()
        harness.now += 1.0
        harness.core.tick(harness.now)
        if "b" in {row.request_id for row in harness.worker.rows}:
            break
    else:
        pytest.fail("b starves")
    assert number > 10
    harness.run()
    harness.verify()


def test_a_place_goes_to_the_higher_priority() -> None:
    harness = needy(loras=1, policy="priority")
    ask(harness, "runs", "a", max_tokens=10)
    harness.pump()
    harness.prepare()
    step(harness)
    ask(harness, "high", "b", max_tokens=2, priority=1)
    ask(harness, "low", "a", max_tokens=2)  # could run at once, and would keep the place
    harness.run()
    harness.verify()
    assert list(dict.fromkeys(row.request_id for row in harness.worker.rows)) == ["runs", "high", "low"]


def test_a_retracted_sequence_keeps_what_was_prepared() -> None:
    harness = needy(loras=2, max_slots=2, num_pages=6)
    ask(harness, "old", "a", max_tokens=14)
    ask(harness, "young", "b", max_tokens=14)
    harness.pump()
    while harness.prepare():
        pass
    harness.run()
    harness.verify()
    assert harness.core.replica.counters.retracted > 0
    assert harness.worker.preparations.counts == {"a": 1, "b": 1}


def test_any_number_of_sequences_is_prepared_by_one_answer() -> None:
    harness = needy()
    for number in range(2 * SCAN + 10):
        ask(harness, f"r{number}", "a", max_tokens=1)
    assert harness.core.next_prepare(0.0) is not None
    harness.core.prepared(Prepared(epoch=EPOCH, number=0), 0.0)
    assert harness.core.replica.queue.preparing == 0


def test_those_far_behind_in_the_queue_get_their_turn() -> None:
    harness = needy(loras=2, max_slots=2)
    for number in range(SCAN + 10):
        ask(harness, f"r{number}", f"l{number}", max_tokens=1)
    harness.run()
    harness.verify()


# -- ranks, losses --


def test_every_rank_must_have_it() -> None:
    harness = needy(ranks=3)
    ask(harness, "r", "a", max_tokens=2)
    harness.pump()
    for rank in (2, 0, 0):
        harness.prepare(rank=rank)
        assert harness.pump() == 0
    harness.prepare(rank=1)
    assert harness.pump() > 0


def test_what_is_not_answered_is_asked_again_and_answers_may_come_twice() -> None:
    harness = needy()
    ask(harness, "r", "a", max_tokens=2)
    first = harness.core.next_prepare(0.0)
    assert harness.core.next_prepare(1.0) is None
    harness.core.tick(ASK_AGAIN / 2)
    assert harness.core.next_prepare(ASK_AGAIN / 2) is None
    harness.core.tick(ASK_AGAIN + 0.1)
    again = harness.core.next_prepare(ASK_AGAIN + 0.1)
    assert first == again
    assert first is not None
    harness.worker.preparations.ask(first)
    harness.prepare()
    for code in (None, ErrorCode.INTERNAL):  # what comes behind the first answer changes nothing
        harness.core.prepared(Prepared(epoch=EPOCH, number=0, code=code), harness.now)
    for strange in ({"epoch": EPOCH - 1, "number": 1}, {"epoch": EPOCH, "number": 9}, {"epoch": EPOCH, "number": -1}):
        harness.core.prepared(Prepared(**strange, code=ErrorCode.INTERNAL), harness.now)
    harness.core.tick(100.0)
    assert harness.core.next_prepare(100.0) is None
    harness.run()
    harness.verify()
    assert not harness.failures()


def test_an_answer_of_a_rank_that_does_not_exist_counts_for_nothing() -> None:
    harness = needy(ranks=2)
    ask(harness, "r", "a")
    harness.pump()
    for rank in (-1, 2, 3):
        harness.core.prepared(Prepared(epoch=EPOCH, number=0, rank=rank), 0.0)
    assert harness.pump() == 0


# -- ends --


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_failure_ends_exactly_those_who_need_it_and_their_gateways_hear_why(ranks: int) -> None:
    harness = needy(ranks=ranks)
    ask(harness, "bad1", "x", n=2)
    ask(harness, "bad2", "x")
    ask(harness, "good", "y", max_tokens=2)
    ask(harness, "plain", max_tokens=2)
    harness.pump()
    harness.prepare(code=ErrorCode.INVALID_REQUEST)
    told = {effect.message.request_id: effect.message for effect in harness.failures()}
    assert set(told) == {"bad1", "bad2"}
    assert len(harness.failures()) == 2
    for message in told.values():
        assert (message.code, message.message, message.param, message.choice) == (
            ErrorCode.INVALID_REQUEST, "the test wanted it", "lora", -1,
        )  # fmt: skip
    ask(harness, "again", "x", max_tokens=2)  # the failure is not remembered
    harness.run()
    harness.verify()
    assert set(failures(harness)) == {"bad1", "bad2"}
    assert harness.worker.preparations.counts == {"x": 2, "y": 1}
    assert load_attributes(harness.core.replica)["prepare_failures"] == 1


def test_a_failed_one_takes_no_place_once_all_ranks_have_answered() -> None:
    harness = needy(loras=1, ranks=2)
    ask(harness, "bad", "x")
    harness.pump()
    harness.prepare(rank=1, code=ErrorCode.INTERNAL)
    ask(harness, "good", "y", max_tokens=2)
    harness.pump()
    assert asked(harness) == ["x"], "a rank is still at it"
    harness.prepare(rank=0)
    harness.pump()
    assert asked(harness) == ["y"]
    harness.run()
    harness.verify()


def test_what_fails_on_several_ranks_fails_once() -> None:
    harness = needy(loras=2, ranks=3)
    ask(harness, "bad", "x")
    harness.pump()
    harness.prepare(rank=1, code=ErrorCode.INVALID_REQUEST)
    ask(harness, "again", "x", max_tokens=2)
    harness.pump()
    assert asked(harness) == ["x", "x"]
    harness.prepare(rank=2, code=ErrorCode.INTERNAL)
    harness.prepare(rank=0, code=ErrorCode.INTERNAL)
    harness.run()
    harness.verify()
    assert failures(harness) == {"bad": ErrorCode.INVALID_REQUEST}
    assert len(harness.failures()) == 1


def test_a_cancel_while_preparing_leaves_the_result_to_the_next() -> None:
    harness = needy(loras=1)
    ask(harness, "gone", "a")
    harness.pump()
    harness.cancel("gone")
    assert harness.core.idle
    harness.prepare()
    ask(harness, "next", "a", max_tokens=2)
    harness.run()
    harness.verify()
    assert harness.worker.preparations.counts == {"a": 1}
    assert not harness.failures()


@pytest.mark.parametrize("bound", ["deadline", "queue timeout"])
def test_time_runs_while_it_is_prepared(bound: str) -> None:
    harness = needy(queue_timeout=5.0 if bound == "queue timeout" else 0.0)
    ask(harness, "late", "a", time_left=5.0 if bound == "deadline" else 1e6)
    harness.pump()
    harness.now = 6.0
    harness.core.tick(harness.now)
    harness.pump()
    assert failures(harness) == {"late": ErrorCode.DEADLINE_EXCEEDED}
    assert harness.core.idle
    harness.prepare()
    assert harness.pump() == 0


def test_a_death_while_preparing_sends_it_back_and_a_new_claim_asks_anew() -> None:
    harness = needy()
    ask(harness, "r", "a")
    harness.pump()
    harness.core.lost("the worker is gone", harness.now)
    harness.effects += harness.core.take_effects()
    assert failures(harness) == {"r": ErrorCode.REPLICA_LOST}
    anew = needy()
    ask(anew, "r", "a", attempt=1)
    anew.run()
    anew.verify()
    assert anew.worker.preparations.counts == {"a": 1}


def test_what_waits_for_a_preparation_is_handed_back_when_the_replica_ends() -> None:
    harness = needy()
    ask(harness, "r", "a")
    harness.pump()
    harness.core.hand_back_waiting("ending", harness.now)
    harness.effects += harness.core.take_effects()
    assert failures(harness) == {"r": ErrorCode.REPLICA_LOST}
    assert harness.core.idle


def test_a_newer_attempt_takes_over() -> None:
    harness = needy()
    ask(harness, "r", "a", max_tokens=3)
    harness.pump()
    ask(harness, "r", "a", max_tokens=3, attempt=1)
    harness.run()
    assert harness.worker.preparations.counts == {"a": 1}
    assert {row.attempt for row in harness.worker.rows} == {1}


def test_who_needs_what_the_group_does_not_prepare_is_refused_by_name() -> None:
    harness = needy(loras=0)
    with pytest.raises(RequestError, match="no lora") as caught:
        ask(harness, "r", "a")
    assert (caught.value.code, caught.value.param) == (ErrorCode.INVALID_REQUEST, "lora")
    assert wrong_sizes(sizes().model_copy(update={"prepares": {"lora": 0}})) == "it prepares 0 results of lora"


# -- the books alone, with several kinds --


def _sequence(order: int, needs: tuple[Need, ...]) -> Sequence:
    message = admit_message(f"r{order}", [1, 2, 3])
    (seq,) = new_sequences(message, message.choices, Harness().core.replica, order, 0.0)
    seq.needs, seq.prepared = needs, False
    return seq


@pytest.fixture
def two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind, with a field of its own."""
    monkeypatch.setattr(Work, "PREPARED", ("lora", "cache_salt"))


@pytest.mark.usefixtures("two_kinds")
def test_nobody_holds_one_kind_while_waiting_for_another() -> None:
    needs = [(Need("lora", x), Need("cache_salt", y)) for x, y in (("a", "x"), ("b", "x"), ("a", "y"))]
    claimed = sizes().model_copy(update={"prepares": {"lora": 1, "cache_salt": 1}})
    books = Preparations(claimed, "r", EPOCH, Policy("fcfs", 1).level)
    seqs = [_sequence(i, need) for i, need in enumerate(needs)]
    for seq in seqs:
        books.add(seq)
    done: list[Sequence] = []
    while len(done) < 3:
        messages = []
        while True:
            message, ready = books.next(seqs, 0, 0.0)
            done += ready
            if message is None:
                break
            messages.append(message)
        assert [message.kind for message in messages] in (["lora", "cache_salt"], ["cache_salt"], ["lora"])
        for message in messages:
            done += books.answered(Prepared(epoch=EPOCH, number=message.number))[0]
        assert books.check() == []
        books.remove(done[-1], 0)
    assert set(done) == set(seqs)


@pytest.mark.usefixtures("two_kinds")
def test_who_goes_first_and_needs_two_kinds_is_passed_in_neither() -> None:
    """Else others could take from it what is there of the one, whenever there is room for the other."""
    claimed = sizes().model_copy(update={"prepares": {"lora": 1, "cache_salt": 1}})
    books = Preparations(claimed, "r", EPOCH, Policy("fcfs", 1).level)
    holder, before = _sequence(0, (Need("lora", "a"),)), _sequence(0, (Need("cache_salt", "x"),))
    first = _sequence(1, (Need("lora", "b"), Need("cache_salt", "x")))
    behind = _sequence(2, (Need("cache_salt", "y"),))
    first.promoted = True
    seqs = [holder, before, first, behind]
    for seq in seqs[:2]:
        books.add(seq)
        (message,) = iter(lambda: books.next(seqs, 0, 0.0)[0], None)
        books.answered(Prepared(epoch=EPOCH, number=message.number))
    books.remove(before, 0)
    books.add(first)
    books.add(behind)
    assert books.next(seqs, 0, 0.0) == (None, [])
    books.remove(holder, 0)
    assert [message.kind for message in iter(lambda: books.next(seqs, 0, 0.0)[0], None)] == ["lora"]


@given(st.data())
def test_the_books_are_right_and_everyone_is_served_whatever_the_order(data: st.DataObject) -> None:
    places, ranks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    claimed = sizes(loras=places, ranks=ranks)
    books = Preparations(claimed, "r", EPOCH, Policy("fcfs", 1).level)
    waiting: dict[Sequence, None] = {}
    prepared: list[Sequence] = []
    open_answers: list[tuple[int, int]] = []
    planned = reported = 0

    def look() -> None:
        while True:
            message, ready = books.next(waiting, reported, 0.0)
            prepared.extend(ready)
            if message is None:
                return
            open_answers.extend((message.number, rank) for rank in range(ranks))

    def answer(which: int, code: ErrorCode | None) -> None:
        number, rank = open_answers.pop(which % len(open_answers))
        ready, failed = books.answered(Prepared(epoch=EPOCH, number=number, rank=rank, code=code))
        prepared.extend(ready)
        for seq in list(failed.users) if failed else ():
            waiting.pop(seq)
            books.remove(seq, planned)

    def leave(seq: Sequence) -> None:
        waiting.pop(seq)
        books.remove(seq, planned)

    for number, action in enumerate(data.draw(st.lists(st.sampled_from("aawlrlpx"), max_size=60))):
        match action:
            case "a":
                seq = _sequence(number, (Need("lora", data.draw(st.sampled_from("abcd"))),))
                waiting[seq] = None
                books.add(seq)
            case "w" | "x" if open_answers:
                answer(data.draw(st.integers(0, 9)), ErrorCode.INTERNAL if action == "x" else None)
            case "l" if waiting:
                leave(data.draw(st.sampled_from(list(waiting))))
            case "p":
                planned += 1
            case "r":
                reported = planned
        look()
        assert books.check() == []
    while waiting:
        reported = planned
        look()
        while open_answers:
            answer(0, None)
            look()
        done = [seq for seq in waiting if seq in prepared]
        assert done, "nobody gets on"
        for seq in done:
            leave(seq)
    assert books.check() == []


def test_a_simulated_rank_says_the_same_when_it_says_so_again() -> None:
    ranks = SimPreparations(sizes(ranks=2, loras=1))
    ranks.ask(Prepare(epoch=EPOCH, number=0, replica_id="r", kind="lora", work=Work(lora="a")))
    first = ranks.answer(0, 0)
    assert ranks.answer(0, 0, ErrorCode.INTERNAL) == first
    ranks.answer(0, 1)
    assert ranks.there() == set(Work(lora="a").needs())

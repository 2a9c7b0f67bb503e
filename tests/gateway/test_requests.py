"""The request table as pure logic, without a bus: single cases, then random weather."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radixmesh.services.gateway.requests.ports import Limits, Load, Observer
from radixmesh.services.gateway.requests.request import Request
from radixmesh.services.gateway.requests.table import Outgoing, RequestTable
from radixmesh.shared.errors import ErrorCode, MessageError, RequestError
from radixmesh.shared.messages import (
    Cancel,
    Choice,
    Finish,
    Message,
    RequestFailed,
    Routed,
    SamplingParams,
    Submit,
    TextBatch,
    Work,
)

DETOK = ("detok", 1)
LENGTH = 10


class FakeMesh:
    """Replicas by name, with their epochs."""

    def __init__(self) -> None:
        self.replicas = {"r0": 1}
        self.loads: dict[str, Load] = {}
        self.is_unknown = False
        self.is_reachable = True
        self.only = ""
        """The one model there is, if it goes by any name."""
        self.defaults: dict[str, float | int] = {}

    def reachable(self) -> bool:
        return self.is_reachable

    def named(self, model: str) -> str:
        return self.only or model

    def sampling_defaults(self, model: str) -> dict[str, float | int]:
        return self.defaults

    def missing(self, model: str) -> str:
        if not self.is_reachable:
            return "the bus is out of reach"
        return "" if self.replicas else "no scheduler is ready"

    def unknown(self, model: str) -> bool:
        return self.is_unknown

    def alive(self, instance: str, epoch: int) -> bool:
        return (instance, epoch) == DETOK or self.replicas.get(instance) == epoch

    def load(self, replica_id: str, quiet: float) -> Load | None:
        return self.loads.get(replica_id, Load(running=1, waiting=1, begun=0))


class Counter(Observer):
    def __init__(self) -> None:
        self.ends: dict[str, int] = defaultdict(int)

    def ended(self, request: Request, now: float) -> None:
        self.ends[request.request_id] += 1


def make_submit(request_id: str = "a", n: int = 1, **params: Any) -> Submit:
    return Submit(
        request_id=request_id,
        gateway_id="gw",
        model="m",
        text="hi",
        work=Work(params=SamplingParams(n=n, **params)),
        time_left=600,
    )


def make_routed(submit: Submit, replica: str = "r0", epoch: int = 1) -> Routed:
    return Routed(
        request_id=submit.request_id,
        attempt=submit.attempt,
        replica_id=replica,
        replica_epoch=epoch,
        detokenizer_id=DETOK[0],
        detokenizer_epoch=DETOK[1],
        prompt_tokens=5,
        reason="only",
    )


def make_row(
    submit: Submit, choice: int, first: int, tokens: list[int], text: str, finish: Finish = Finish.RUNNING
) -> TextBatch:
    return TextBatch(
        detokenizer_id="detok",
        request_ids=[submit.request_id],
        choices=np.array([choice]),
        attempts=np.array([submit.attempt]),
        first_index=np.array([first]),
        counts=np.array([len(tokens)]),
        tokens=np.array(tokens),
        texts=[text],
        finish=np.array([finish]),
        stop_reasons=[None],
        prompt_tokens=np.array([5]),
        cached_tokens=np.array([3]),
    )


@dataclass
class Client:
    """Reads what a request gives."""

    request: Request
    texts: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    finishes: dict[int, list[Finish]] = field(default_factory=lambda: defaultdict(list))

    def read(self) -> None:
        for delta in self.request.take():
            self.texts[delta.choice] += delta.text
            if delta.finish is not Finish.RUNNING:
                self.finishes[delta.choice].append(delta.finish)


def opened(table: RequestTable, submit: Submit | None = None, now: float = 0.0) -> tuple[Request, Outgoing]:
    request = Request(submit or make_submit(), 600.0, lambda: None)
    return request, table.open(request, now)


def only_submit(out: Outgoing) -> Submit:
    (submit,) = [message for message in out if isinstance(message, Submit)]
    return submit


def test_a_plain_life() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table)
    submit = only_submit(out)
    assert (submit.attempt, submit.choices) == (0, [])
    assert table.routed(make_routed(submit), 1.0) == []
    assert table.text(make_row(submit, 0, 0, [1, 2], "ab"), 2.0) == []
    assert [(delta.text, delta.tokens, delta.finish) for delta in request.take()] == [("ab", [1, 2], Finish.RUNNING)]
    assert table.text(make_row(submit, 0, 2, [3], "c", Finish.STOP), 3.0) == []
    assert [(delta.text, delta.tokens, delta.finish) for delta in request.take()] == [("c", [3], Finish.STOP)]
    assert (request.ended, request.error, len(table)) == (True, None, 0)
    assert (request.prompt_tokens, request.output_tokens, request.cached_tokens) == (5, 3, 3)
    assert table.text(make_row(submit, 0, 3, [4], "d"), 4.0) == []


def test_what_piles_up_is_one_delta() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table)
    for index in range(4):
        table.text(make_row(only_submit(out), 0, index, [index], str(index)), 1.0)
    assert [delta.text for delta in request.take()] == ["0123"]
    assert list(request.take()) == []


def test_text_may_come_before_the_route() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table)
    table.text(make_row(only_submit(out), 0, 0, [1], "a", Finish.LENGTH), 1.0)
    assert request.ended
    assert table.routed(make_routed(only_submit(out)), 2.0) == []


def test_old_attempts_are_dropped() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table)
    old = only_submit(out)
    table.routed(make_routed(old), 1.0)
    table.gone("r0", 1, 2.0)
    table.text(make_row(old, 0, 0, [7], "old"), 3.0)
    table.failed(RequestFailed(request_id="a", attempt=0, code=ErrorCode.INTERNAL, message="old"), 3.0)
    assert table.routed(make_routed(old), 3.0) == []
    assert (list(request.take()), request.ended, request.attempt) == ([], False, 1)


def test_an_ended_choice_hears_nothing_more_and_is_not_run_again() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table, make_submit(n=2))
    submit = only_submit(out)
    table.routed(make_routed(submit), 1.0)
    last = make_row(submit, 0, 0, [1, 2], "ab", Finish.STOP)
    assert table.text(last, 2.0) == table.text(last, 2.0) == []
    failed = RequestFailed(request_id="a", attempt=0, choice=0, code=ErrorCode.INTERNAL, message="late")
    assert table.failed(failed, 3.0) == []
    assert [(delta.choice, delta.text) for delta in request.take()] == [(0, "ab")]
    assert [choice.index for choice in only_submit(table.gone("r0", 1, 4.0)).choices] == [1]


MISFITS: list[dict[str, Any]] = [
    {"texts": ["a"]},
    {"stop_reasons": [None] * 3},
    {"reasoning": [""]},
    {"prompt_tokens": np.array([5])},
    {"counts": np.array([1, 0])},
    {"counts": np.array([3, -1])},
    {"counts": np.array([1, -1]), "tokens": np.array([])},
    {"finish": np.array([0, 99])},
    {"logprobs": np.array([0.5])},
    {"top_ids": np.array([1])},
]


@pytest.mark.parametrize("columns", MISFITS)
def test_a_batch_with_columns_that_do_not_fit_is_refused_as_a_whole(columns: dict[str, Any]) -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table, make_submit(n=2))
    rows = [make_row(only_submit(out), choice, 0, [1], "a") for choice in (0, 1)]
    columns_of_a_row = [name for name, field in TextBatch.model_fields.items() if field.is_required()][1:]
    both = {name: [*getattr(rows[0], name), *getattr(rows[1], name)] for name in columns_of_a_row}
    batch = TextBatch(detokenizer_id="detok", **both)
    with pytest.raises(MessageError, match=r"TextBatch\."):
        table.text(batch.model_copy(update=columns), 1.0)
    assert not list(request.take())
    table.text(batch, 1.0)
    assert [(delta.choice, delta.text) for delta in request.take()] == [(0, "a"), (1, "a")]


def test_a_replica_that_was_gone_before_its_route_came() -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(), mesh)
    _, out = opened(table)
    assert table.gone("r0", 1, 1.0) == []
    again = table.routed(make_routed(only_submit(out)), 2.0)
    assert only_submit(again).attempt == 1
    assert [message.attempts.tolist() for message in again if isinstance(message, Cancel)] == [[0]]


def test_only_the_dead_epoch_counts() -> None:
    table = RequestTable(Limits(), FakeMesh())
    _, out = opened(table)
    table.routed(make_routed(only_submit(out), epoch=2), 1.0)
    assert table.gone("r0", 1, 2.0) == []
    assert table.gone("someone", 9, 2.0) == []
    assert only_submit(table.gone("detok", 1, 2.0)).attempt == 1


def test_a_choice_that_lost_only_the_word_of_its_end() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table, make_submit(max_tokens=2))
    table.routed(make_routed(only_submit(out)), 1.0)
    table.text(make_row(only_submit(out), 0, 0, [1, 2], "ab"), 2.0)
    again = only_submit(table.gone("r0", 1, 3.0))
    assert again.choices[0].resumed.tolist() == [1, 2]
    table.text(make_row(again, 0, 2, [], "c", Finish.LENGTH), 4.0)  # which the detokenizer had held back
    assert [(delta.text, delta.finish) for delta in request.take()] == [("abc", Finish.LENGTH)]
    assert request.ended


@pytest.mark.parametrize("first", [1, 3])
def test_rows_that_do_not_fit_send_it_round_again(first: int) -> None:
    """A gap, and a row that half overlaps, whose text cannot be cut."""
    table = RequestTable(Limits(), FakeMesh())
    request, out = opened(table)
    table.text(make_row(only_submit(out), 0, 0, [1, 2], "ab"), 1.0)
    again = only_submit(table.text(make_row(only_submit(out), 0, first, [3, 4], "cd"), 2.0))
    assert [(choice.index, choice.resumed.tolist()) for choice in again.choices] == [(0, [1, 2])]
    assert [delta.text for delta in request.take()] == ["ab"]


def test_refusals_that_time_may_cure() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, _ = opened(table)
    failed = RequestFailed(request_id="a", attempt=0, code=ErrorCode.NOT_READY, message="no")
    assert table.failed(failed, 1.0) == []
    assert table.tick(1.1) == []
    assert only_submit(table.tick(1.3)).attempt == 1
    assert table.failed(failed, 2.0) == []  # an old attempt's
    table.failed(failed.model_copy(update={"attempt": 1, "code": ErrorCode.QUEUE_FULL, "retry_after": 2.0}), 3.0)
    assert table.tick(4.9) == []
    assert only_submit(table.tick(5.1)).attempt == 2
    table.failed(failed.model_copy(update={"attempt": 2}), 31.0)
    assert request.error is not None
    assert request.error.code is ErrorCode.NOT_READY


def test_the_clock_sleeps_until_something_is_due() -> None:
    table = RequestTable(Limits(), FakeMesh())
    idle = table.pause(0.0)
    assert idle >= 1.0
    request, out = opened(table, now=0.0)
    assert table.pause(0.0) <= 0.1  # it may have to be sent once more
    table.routed(make_routed(only_submit(out)), 1.0)
    assert table.pause(1.0) == idle
    assert table.pause(request.deadline - 0.5) == 0.5
    assert table.pause(request.deadline + 1.0) == 0.0
    table.tick(request.deadline)
    assert request.ended


def test_a_full_queue_ends_a_first_attempt() -> None:
    table = RequestTable(Limits(), FakeMesh())
    request, _ = opened(table)
    table.failed(RequestFailed(request_id="a", attempt=0, code=ErrorCode.QUEUE_FULL, message="no"), 1.0)
    assert request.error is not None
    assert request.error.code is ErrorCode.QUEUE_FULL


def test_a_request_that_has_begun_is_put_off_by_a_full_queue_and_goes_on_where_it_was() -> None:
    """A higher priority may take its place on the replica long after it was let in."""
    limits = Limits()
    table = RequestTable(limits, FakeMesh())
    request, out = opened(table)
    first, late = only_submit(out), limits.ready_wait + 5.0
    table.routed(make_routed(first), 0.1)
    table.text(make_row(first, 0, 0, [1, 2], "ab"), 0.2)
    table.failed(RequestFailed(request_id="a", attempt=0, code=ErrorCode.QUEUE_FULL, message="no"), late)
    assert not request.ended
    again = only_submit(table.tick(late + 5.0))
    assert (again.attempt, again.choices[0].resumed.tolist()) == (1, [1, 2])


def test_attempts_back_off_and_end() -> None:
    table = RequestTable(Limits(max_attempts=3), FakeMesh())
    request, _ = opened(table)
    now, times = 0.0, []
    while not request.ended:
        sent = table.failed(
            RequestFailed(request_id="a", attempt=request.attempt, code=ErrorCode.REPLICA_LOST, message="x"), now
        )
        while not request.ended and not any(isinstance(message, Submit) for message in sent):
            now += 0.1
            sent = table.tick(now)
        times.append(now)
    assert request.error is not None
    assert request.error.code is ErrorCode.REPLICA_LOST
    assert len(times) == 3
    assert times[1] > times[0]


def test_silence_is_a_stall_unless_the_request_may_be_queued() -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(stall_timeout=60), mesh)
    _, out = opened(table)
    table.routed(make_routed(only_submit(out)), 1.0)
    assert table.tick(300.0) == []
    table.text(make_row(only_submit(out), 0, 0, [1], "a"), 301.0)
    assert table.tick(360.0) == []
    again = only_submit(table.tick(361.0))
    assert again.attempt == 1
    mesh.loads["r0"] = Load(4, 0, 0)
    _, out = opened(table, make_submit("b"), 400.0)
    table.routed(make_routed(only_submit(out)), 400.0)
    table.cancel("a", 400.0)
    assert table.tick(459.0) == []
    assert only_submit(table.tick(460.0)).attempt == 1


@pytest.mark.parametrize(
    ("load", "stalled"),
    [
        (Load(running=4, waiting=2, begun=2), False),  # it was preempted, or goes on from another replica
        (Load(running=4, waiting=2, begun=1), False),
        (Load(running=4, waiting=2, begun=0), True),  # those that wait are others
        (Load(running=4, waiting=0, begun=0), True),
    ],
)
def test_one_that_has_begun_may_be_queued_again(load: Load, stalled: bool) -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(stall_timeout=60), mesh)
    request, out = opened(table)
    table.routed(make_routed(only_submit(out)), 1.0)
    table.text(make_row(only_submit(out), 0, 0, [1], "a"), 2.0)
    mesh.loads["r0"] = load
    table.tick(100.0)
    assert (request.attempt == 1) is stalled


@pytest.mark.parametrize(("load", "stalled"), [(Load(4, 3, 2), False), (Load(4, 2, 2), True), (Load(4, 0, 0), True)])
def test_a_choice_may_wait_for_its_first_token_behind_another_of_its_request(load: Load, stalled: bool) -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(stall_timeout=60), mesh)
    request, out = opened(table, make_submit(n=2))
    table.routed(make_routed(only_submit(out)), 1.0)
    table.text(make_row(only_submit(out), 0, 0, [1], "a", Finish.STOP), 2.0)
    mesh.loads["r0"] = load
    table.tick(100.0)
    assert (request.attempt == 1) is stalled


def test_an_idle_replica_has_forgotten() -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(), mesh)
    _, out = opened(table)
    table.routed(make_routed(only_submit(out)), 1.0)
    mesh.loads["r0"] = Load(0, 0, 0)
    assert table.tick(3.0) == []
    assert only_submit(table.tick(6.0)).attempt == 1


def test_a_reconnect_costs_no_attempt() -> None:
    table = RequestTable(Limits(max_attempts=1), FakeMesh())
    request, _ = opened(table)
    for round_ in range(4):
        assert [type(message) for message in table.reconnected(round_)] == [Cancel]
        assert only_submit(table.tick(round_ + 0.6)).attempt == round_ + 1
    assert not request.ended


def test_unknown_models_and_limits() -> None:
    mesh = FakeMesh()
    table = RequestTable(Limits(max_inflight=1), mesh)
    opened(table)
    with pytest.raises(RequestError, match="1 prompts in work"):
        opened(table, make_submit("b"))
    mesh.is_unknown = True
    table = RequestTable(Limits(), mesh)
    with pytest.raises(RequestError, match="no model named 'm'"):
        opened(table)
    assert len(table) == 0


def test_waiting_ends_with_what_is_missing() -> None:
    mesh = FakeMesh()
    mesh.replicas.clear()
    table = RequestTable(Limits(ready_wait=5), mesh)
    request, out = opened(table)
    assert out == table.tick(4.9) == []
    assert table.tick(5.0) == []
    assert request.error is not None
    assert (request.error.code, request.error.retry_after) == (ErrorCode.NOT_READY, 5.0)
    assert "no scheduler is ready" in request.error.message


def test_a_request_that_came_before_the_mesh_goes_to_the_model_that_came() -> None:
    mesh = FakeMesh()
    mesh.replicas.clear()
    table = RequestTable(Limits(), mesh)
    submit = make_submit().model_copy(update={"model": ""})
    request, out = opened(table, submit)
    assert out == []
    mesh.only, mesh.replicas = "m", {"r0": 1}
    assert only_submit(table.mesh_changed(1.0)).model == "m"
    table.routed(make_routed(request.submit), 1.0)
    mesh.only = "another"
    again = table.gone("r0", 1, 2.0)
    assert only_submit(again).model == "m"  # what has begun is not another model's to go on with


def test_a_request_that_came_before_the_mesh_is_sampled_as_the_model_recommends() -> None:
    mesh = FakeMesh()
    mesh.replicas.clear()
    table = RequestTable(Limits(), mesh)
    request = Request(make_submit(top_p=0.9), 600.0, lambda: None, chosen=frozenset({"top_p"}))
    assert table.open(request, 0.0) == []
    mesh.replicas, mesh.defaults = {"r0": 1}, {"temperature": 0.6, "top_k": 20, "top_p": 0.8, "max_tokens": 3}
    sent = only_submit(table.mesh_changed(1.0))
    assert sent.work == make_submit(top_p=0.9, temperature=0.6, top_k=20).work
    table.routed(make_routed(sent), 1.0)
    mesh.defaults = {"temperature": 0.1}
    again = only_submit(table.gone("r0", 1, 2.0))
    assert again.work == sent.work  # what has begun goes on as it was


def test_no_name_where_several_models_are_served() -> None:
    mesh = FakeMesh()
    mesh.is_unknown = True
    table = RequestTable(Limits(), mesh)
    with pytest.raises(RequestError, match="model: required") as raised:
        opened(table, make_submit().model_copy(update={"model": ""}))
    assert (raised.value.code, raised.value.param) == (ErrorCode.INVALID_REQUEST, "model")


# -- random weather --


def expected_token(choice: int, index: int) -> int:
    return 100 * choice + index


def text_after(choice: int, count: int, last: bool) -> str:
    """What a detokenizer has shown after `count` tokens: it holds every second token's text back, up to the end."""
    shown = count if last else count - count % 2
    return "".join(f"<{choice}.{index}>" for index in range(shown))


class World:
    """A ring that runs by the rules, on a bus that does not."""

    def __init__(self, n: int, steps: int) -> None:
        self.now = 0.0
        self.mesh = FakeMesh()
        self.counter = Counter()
        limits = Limits(max_attempts=1000, route_timeout=3.0, stall_timeout=10.0)
        self.table = RequestTable(limits, self.mesh, self.counter)
        self.steps = steps
        """Tokens a row."""
        self.net: list[Message] = []
        """On their way to the gateway."""
        self.jobs: dict[tuple[int, int], tuple[Submit, str, int, int]] = {}
        """(attempt, choice) to (submit, replica, its epoch, next index) of what replicas run."""
        request = Request(make_submit(n=n), 1e9, lambda: None)
        self.client = Client(request)
        self.take(self.table.open(request, 0.0))

    def take(self, out: Outgoing, *, lose: bool = False) -> None:
        for message in [] if lose else out:
            if isinstance(message, Cancel):
                limit = int(message.attempts[0])
                self.jobs = {key: job for key, job in self.jobs.items() if key[0] > limit}
            elif self.mesh.replicas:
                self.admit(message)
        self.client.read()

    def admit(self, submit: Submit) -> None:
        replica, epoch = next(iter(self.mesh.replicas.items()))
        self.net.append(make_routed(submit, replica, epoch))
        for choice in submit.choices or [Choice(index=index) for index in range(submit.work.params.n)]:
            count = len(choice.resumed)
            assert choice.resumed.tolist() == [expected_token(choice.index, index) for index in range(count)]
            self.jobs[submit.attempt, choice.index] = (submit, replica, epoch, count)

    def work(self) -> None:
        """Every running choice advances by one row."""
        for (attempt, choice), (submit, replica, epoch, first) in list(self.jobs.items()):
            if self.mesh.replicas.get(replica) != epoch:
                del self.jobs[attempt, choice]
                continue
            end = min(first + self.steps, LENGTH)
            last = end == LENGTH
            tokens = [expected_token(choice, index) for index in range(first, end)]
            text = text_after(choice, end, last)[len(text_after(choice, first, False)) :]
            self.net.append(make_row(submit, choice, first, tokens, text, Finish.STOP if last else Finish.RUNNING))
            self.jobs[attempt, choice] = (submit, replica, epoch, end)
            if last:
                del self.jobs[attempt, choice]

    def deliver(self, position: int, *, keep: bool = False, lose_answer: bool = False) -> None:
        if self.net:
            position %= len(self.net)
            message = self.net[position] if keep else self.net.pop(position)
            handle = {Routed: self.table.routed, TextBatch: self.table.text, RequestFailed: self.table.failed}
            self.take(handle[type(message)](message, self.now), lose=lose_answer)  # type: ignore[operator]

    def drop(self, position: int) -> None:
        if self.net:
            self.net.pop(position % len(self.net))

    def die(self, *, told: bool) -> None:
        """A replica dies; it is back at once if another does not stand by."""
        for name, epoch in list(self.mesh.replicas.items())[:1]:
            self.mesh.replicas[name] = epoch + 1
            if told:
                self.take(self.table.gone(name, epoch, self.now))

    def lose_group(self) -> None:
        """The scheduler lives, its workers do not: REPLICA_LOST for all that it ran."""
        for attempt, _ in list(self.jobs):
            self.net.append(
                RequestFailed(request_id="a", attempt=attempt, code=ErrorCode.REPLICA_LOST, message="workers died")
            )
        self.jobs.clear()

    def absent(self) -> None:
        """No replica for a while."""
        kept = dict(self.mesh.replicas)
        self.mesh.replicas.clear()
        self.tick(1.0)
        self.mesh.replicas.update({name: epoch + 1 for name, epoch in kept.items()})
        for name, epoch in kept.items():
            self.take(self.table.gone(name, epoch, self.now))
        self.take(self.table.mesh_changed(self.now))

    def tick(self, seconds: float, *, lose_answer: bool = False) -> None:
        self.now += seconds
        self.mesh.loads = {name: Load(len(self.jobs), 0, 0) for name in self.mesh.replicas}
        self.take(self.table.tick(self.now), lose=lose_answer)

    def check(self) -> None:
        request = self.client.request
        for choice in range(len(request.choices)):
            full = text_after(choice, LENGTH, True)
            assert full.startswith(self.client.texts[choice])
            assert len(self.client.finishes[choice]) <= 1
            if self.client.finishes[choice]:
                assert self.client.texts[choice] == full
        assert self.counter.ends["a"] == (1 if request.ended else 0)


ACTIONS = st.one_of(
    st.tuples(st.just("work")),
    st.tuples(st.just("deliver"), st.integers(0, 7)),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("duplicate"), st.integers(0, 7)),
    st.tuples(st.just("drop"), st.integers(0, 7)),
    st.tuples(st.just("lost answer"), st.integers(0, 7)),
    st.tuples(st.just("tick"), st.sampled_from([0.1, 1.0, 4.0])),
    st.tuples(st.just("lost tick"), st.sampled_from([1.0, 4.0])),
    st.tuples(st.sampled_from(["die", "die unseen", "lose group", "reconnect", "absent"])),
)


def act(world: World, name: str, argument: Any) -> None:
    match name:
        case "work":
            world.work()
        case "deliver":
            world.deliver(argument)
        case "duplicate":
            world.deliver(argument, keep=True)
        case "lost answer":
            world.deliver(argument, lose_answer=True)
        case "drop":
            world.drop(argument)
        case "tick":
            world.tick(argument)
        case "lost tick":
            world.tick(argument, lose_answer=True)
        case "die":
            world.die(told=True)
        case "die unseen":
            world.die(told=False)
        case "lose group":
            world.lose_group()
        case "reconnect":
            world.take(world.table.reconnected(world.now))
        case "absent":
            world.absent()


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(n=st.integers(1, 3), steps=st.integers(1, 4), weather=st.lists(ACTIONS, max_size=60))
def test_whatever_the_weather_the_stream_is_unbroken(n: int, steps: int, weather: list[tuple[Any, ...]]) -> None:
    world = World(n, steps)
    for name, *argument in weather:
        act(world, name, argument[0] if argument else None)
        world.check()
    for _ in range(500):  # the storm is over
        if world.client.request.ended:
            break
        world.work()
        while world.net:
            world.deliver(0)
        world.tick(1.0)
        world.check()
    assert world.client.request.ended
    assert world.client.request.error is None
    assert all(world.client.finishes[choice] == [Finish.STOP] for choice in range(n))
    assert len(world.table) == 0
    assert world.client.request.output_tokens == n * LENGTH


def test_a_member_that_was_only_silent_can_be_routed_to_again() -> None:
    """Its presence expired and came back in the same epoch: a stopped and woken process, or a pause of the machine."""
    table = RequestTable(Limits(), FakeMesh())
    table.gone("detok", 1, 1.0)
    table.came("detok", 1)
    _, out = opened(table)
    assert table.routed(make_routed(only_submit(out)), 2.0) == []


def test_a_member_that_came_back_anew_leaves_its_old_epoch_lost() -> None:
    table = RequestTable(Limits(), FakeMesh())
    table.gone("r0", 1, 1.0)
    table.came("r0", 2)
    _, out = opened(table)
    assert only_submit(table.routed(make_routed(only_submit(out)), 2.0)).attempt == 1

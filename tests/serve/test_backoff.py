"""How long to wait before a process that died is started again."""

from radixmesh.cli.serve.supervision.backoff import Backoff


def test_waits_double_up_to_a_bound() -> None:
    backoff = Backoff(first=0.2, longest=2.0)
    assert [backoff.died(1.0) for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_a_healthy_while_clears_the_record() -> None:
    backoff = Backoff(first=0.2, healthy=10.0)
    assert [backoff.died(t) for t in (None, 9.9, 10.0, None)] == [0.2, 0.4, 0.2, 0.4]


def test_what_never_served_is_given_up() -> None:
    backoff = Backoff(give_up=3)
    told = []
    for _ in range(3):
        backoff.died(None)
        told.append(backoff.hopeless)
    assert told == [False, False, True]


def test_what_has_served_once_is_started_for_ever() -> None:
    backoff = Backoff(give_up=3)
    backoff.died(0.5)
    for _ in range(10):
        backoff.died(None)
    assert not backoff.hopeless


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(longest=15.0)
    assert {backoff.died(0.1) for _ in range(3000)} >= {15.0}

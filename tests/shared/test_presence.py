"""What a service believes of the others, whatever order heartbeats come in."""

from radixmesh.shared.messages import Outdated, Presence, State
from radixmesh.shared.presence.view import MISSED_BEATS, PresenceView


def beat(instance: str = "a", epoch: int = 1, state: State = State.READY, **fields: object) -> Presence:
    return Presence(service="scheduler", instance=instance, epoch=epoch, state=state, **fields)


class Watched:
    """A view whose clock the test turns, and what it told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.view = PresenceView(clock=lambda: self.now)
        self.told: list[tuple[int | None, int | None]] = []
        self.view.on_change.append(
            lambda before, now: self.told.append((before.epoch if before else None, now.epoch if now else None))
        )


def test_newcomer_change_and_departure_are_told_once() -> None:
    watched = Watched()
    watched.view.update(beat())
    watched.view.update(beat())
    watched.view.update(beat(state=State.DRAINING))
    watched.view.update(beat(state=State.GONE))
    watched.view.update(beat(state=State.GONE))
    assert watched.told == [(None, 1), (1, 1), (1, None)]


def test_a_new_epoch_is_told_as_gone_then_new() -> None:
    watched = Watched()
    watched.view.update(beat(epoch=1))
    watched.view.update(beat(epoch=2))
    assert watched.told == [(None, 1), (1, None), (None, 2)]
    assert watched.view.alive("a", 2)
    assert not watched.view.alive("a", 1)


def test_heartbeats_of_the_past_are_dropped() -> None:
    watched = Watched()
    watched.view.update(beat(epoch=2))
    watched.view.update(beat(epoch=1))
    assert watched.view.alive("a", 2)
    watched.view.update(beat(epoch=2, state=State.GONE))
    watched.view.update(beat(epoch=2))
    assert watched.view.get("a") is None


def test_who_is_dropped_for_its_epoch_can_be_told() -> None:
    watched = Watched()
    told: list[Outdated] = []
    watched.view.on_outdated.append(told.append)
    watched.view.update(beat(epoch=5))
    watched.now += 1.5
    watched.view.forgive()  # what is forgiven was not heard
    watched.view.update(beat(epoch=4))
    watched.view.update(beat(epoch=4, state=State.GONE))
    watched.view.update(beat(epoch=5, state=State.GONE))
    watched.view.update(beat(epoch=5, state=State.GONE))
    watched.view.update(beat(epoch=5))
    watched.view.update(beat(epoch=6))
    assert told == [Outdated(instance="a", epoch=5, quiet=1.5), Outdated(instance="a", epoch=5)]


def test_gone_told_by_a_supervisor_covers_every_older_epoch() -> None:
    watched = Watched()
    watched.view.update(beat(epoch=5))
    watched.view.update(beat(epoch=900, state=State.GONE))
    assert watched.view.get("a") is None
    watched.view.update(beat(epoch=6))
    assert watched.view.get("a") is None
    watched.view.update(beat(epoch=901))
    assert watched.view.alive("a", 901)


def test_silence_ends_a_member_and_its_next_word_brings_it_back() -> None:
    watched = Watched()
    watched.view.update(beat(interval=1.0))
    watched.now += MISSED_BEATS
    watched.view.expire()
    assert watched.view.get("a") is not None
    watched.now += 0.5
    watched.view.expire()
    assert watched.view.get("a") is None
    watched.view.update(beat(interval=1.0))
    assert watched.told == [(None, 1), (1, None), (None, 1)]


def test_a_listener_that_was_asleep_blames_nobody() -> None:
    watched = Watched()
    watched.view.update(beat())
    watched.now += 1000
    watched.view.forgive()
    watched.view.expire()
    assert watched.view.get("a") is not None


def test_after_a_reconnect_nobody_is_ready_until_heard_again() -> None:
    watched = Watched()
    watched.view.update(beat("a"))
    watched.view.update(beat("b"))
    watched.view.doubt()
    assert watched.view.ready("scheduler") == []
    assert watched.view.alive("a", 1)
    told = len(watched.told)
    watched.view.update(beat("b"))
    assert [member.instance for member in watched.view.ready("scheduler")] == ["b"]
    assert len(watched.told) == told + 1  # the same words as before, but news all the same


def test_ready_members_by_service_and_model_in_order() -> None:
    view = PresenceView()
    for instance, state, model in (("b", State.READY, "m"), ("a", State.READY, "m"), ("c", State.STARTING, "m")):
        view.update(beat(instance, state=state, model=model))
    view.update(beat("d", model="other"))
    assert [member.instance for member in view.ready("scheduler", "m")] == ["a", "b"]
    assert [member.instance for member in view.ready("scheduler")] == ["a", "b", "d"]
    assert view.ready("gateway") == []

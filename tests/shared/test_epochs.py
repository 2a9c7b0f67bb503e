"""Whose epoch is the higher, whatever the wall clocks say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.errors import RadixMeshError
from radixmesh.shared.messages import Outdated, Presence, State
from radixmesh.shared.presence.epochs import HIGHEST, LATENCY, SETTLED, Epoch
from radixmesh.shared.presence.view import MISSED_BEATS, PresenceView

INTERVAL = 2.0


class World:
    """Processes of one name, and those who hear them; time passes by `pass_time`."""

    def __init__(self, hearers: int) -> None:
        self.now = 1000.0
        self.living: list[Process] = []
        self.views = [PresenceView(clock=lambda: self.now) for _ in range(hearers)]
        for view in self.views:
            view.on_outdated.append(self._tell)
        self.beats = 0
        self._news: list[Outdated] = []

    def _tell(self, news: Outdated) -> None:
        self._news.append(news)

    def start(self, wall: int) -> "Process":
        process = Process(self, wall)
        self.living.append(process)
        process.beat()
        self.settle()
        return process

    def heard(self, beat: Presence, hearers: list[int] | None = None) -> None:
        self.beats += 1
        assert self.beats < 2000, "they overtake each other for ever"
        for number, view in enumerate(self.views):
            if hearers is None or number in hearers:
                view.update(beat)

    def settle(self) -> None:
        """Delivers what processes must be told, until nobody has anything to say."""
        while self._news:
            news = self._news.pop(0)
            for process in list(self.living):
                process.told(news)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += INTERVAL
            for process in list(self.living):
                process.beat()
                self.settle()
            for view in self.views:
                view.expire()

    def heeded(self, process: "Process") -> bool:
        return all(view.alive("x", process.epoch.value) for view in self.views)


class Process:
    """One that is named x."""

    def __init__(self, world: World, wall: int) -> None:
        self.world = world
        self.epoch = Epoch(wall=lambda: wall, clock=lambda: world.now)

    def presence(self, state: State = State.READY) -> Presence:
        return Presence(service="s", instance="x", epoch=self.epoch.value, state=state, interval=INTERVAL)

    def beat(self) -> None:
        if self in self.world.living:
            self.world.heard(self.presence())

    def told(self, news: Outdated) -> None:
        try:
            if self.epoch.told(news):
                self.beat()
        except RadixMeshError:
            self.world.living.remove(self)

    def die(self, announced: int | None) -> None:
        """`announced`: the wall clock of the supervisor that tells of it, if one does."""
        self.world.living.remove(self)
        if announced is not None:
            gone = self.presence(State.GONE)
            self.world.heard(gone.model_copy(update={"epoch": max(announced, gone.epoch)}))


walls = st.integers(0, 10**6)


@given(st.lists(st.tuples(walls, st.none() | walls, st.booleans()), min_size=1, max_size=8), walls)
def test_whoever_starts_last_is_heeded_by_all(lives: list[tuple[int, int | None, bool]], last: int) -> None:
    """Whatever the clock of each one's host, and of the supervisor that tells of its end, or tells nothing."""
    world = World(hearers=3)
    for wall, announced, long in lives:
        process = world.start(wall)
        world.pass_time(SETTLED + 10 if long else 2 * INTERVAL)
        if process in world.living:
            process.die(announced)
        world.living.clear()
    newest = world.start(last)
    world.pass_time(INTERVAL * (MISSED_BEATS + 2))  # for those that nobody told of
    assert world.living == [newest]
    assert world.heeded(newest)


@given(st.lists(st.tuples(walls, walls), min_size=1, max_size=5), walls)
def test_after_an_announced_end_nobody_waits(lives: list[tuple[int, int]], last: int) -> None:
    world = World(hearers=2)
    for wall, announced in lives:
        process = world.start(wall)
        assert world.heeded(process)
        process.die(announced)
    assert world.heeded(world.start(last))


pauses = st.sampled_from([0.0, 4.0, SETTLED + 10])


@given(st.lists(walls, min_size=2, max_size=4), st.lists(pauses, min_size=3, max_size=3))
def test_namesakes_do_not_overtake_each_other_for_ever(clocks: list[int], between: list[float]) -> None:
    """`World.heard` counts. In the end one is left, and it is heeded."""
    world = World(hearers=2)
    for wall, pause in zip(clocks, [*between, 0.0], strict=False):
        world.start(wall)
        world.pass_time(pause)
    world.pass_time(4 * SETTLED)
    if len(set(clocks)) == len(clocks):
        assert len(world.living) == 1
    assert any(world.heeded(process) for process in world.living)


@pytest.mark.parametrize("wall", [1, 10**9])
def test_a_settled_process_does_not_give_way_to_a_newcomer_of_its_name(wall: int) -> None:
    world = World(hearers=2)
    settled = world.start(1000)
    world.pass_time(SETTLED + 10)
    for _ in range(20):  # something starts it again and again
        world.start(wall)
        world.pass_time(LATENCY + 2 * INTERVAL)
    assert world.living == [settled]
    assert world.heeded(settled)


def test_one_that_slept_gives_way_to_its_successor() -> None:
    world = World(hearers=2)
    sleeper = world.start(10**9)
    world.pass_time(SETTLED + 10)
    world.living.remove(sleeper)
    world.pass_time(INTERVAL * (MISSED_BEATS + 2))
    successor = world.start(1)
    world.pass_time(SETTLED + 10)
    assert world.heeded(successor)
    sleeper.epoch.was_away()
    world.living.append(sleeper)
    world.pass_time(LATENCY + 2 * INTERVAL)
    assert world.living == [successor]
    assert world.heeded(successor)


def test_only_some_remember() -> None:
    world = World(hearers=3)
    world.start(500).die(None)
    world.views[1:] = [PresenceView(clock=lambda: world.now) for _ in range(2)]
    for view in world.views[1:]:
        view.on_outdated.append(world._tell)
    world.views[0].update(Presence(service="s", instance="x", epoch=900, state=State.GONE))
    newest = world.start(3)
    assert newest.epoch.value == 901
    assert world.heeded(newest)


def test_epochs_fit_their_field() -> None:
    epoch = Epoch(wall=lambda: 1)
    assert epoch.told(Outdated(instance="x", epoch=HIGHEST))
    assert epoch.value == HIGHEST
    epoch.renew()
    assert epoch.value == HIGHEST


def test_news_of_oneself_and_of_the_past_are_no_news() -> None:
    epoch = Epoch(wall=lambda: 100)
    assert not epoch.told(Outdated(instance="x", epoch=100, quiet=0.0))
    assert not epoch.told(Outdated(instance="x", epoch=99))
    assert epoch.value == 100

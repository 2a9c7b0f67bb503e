"""The scheduler on a real bus, with a fake worker group and a fake gateway."""

import asyncio

import numpy as np
import pytest

from radixmesh.services.scheduler.mesh import pairing
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import (
    CacheFlushed,
    Cancel,
    Claim,
    Finish,
    FlushCache,
    KvSnapshotRequest,
    Outdated,
    Presence,
    State,
)
from radixmesh.shared.prefix_hash import block_hashes, cache_namespace
from tests.scheduler.harness import sizes
from tests.scheduler.mesh import FakeGroup, at_rest, ended, failure, mesh, until


@pytest.mark.parametrize("first", ["scheduler", "group"])
async def test_scheduler_and_group_find_each_other_in_any_order(settings: ServiceSettings, first: str) -> None:
    async with mesh(settings) as held:
        if first == "scheduler":
            scheduler = held.scheduler()
            early = await until(lambda: next((m for m in held.members if "worker group" in m.detail), None))
            assert (early.instance, early.state) == (scheduler.instance, State.STARTING)
            group = held.group()
        else:
            group = held.group()
            await until(lambda: held.members.ready("model_worker"))
            scheduler = held.scheduler()
        member = await held.claimed(scheduler)
        told = member.attributes
        assert (member.model, told["group_id"], told["page_size"], told["num_pages"]) == ("toy", group.instance, 4, 64)
        await held.ask(scheduler, "a", max_tokens=12, n=2)
        await ended(group, "a", choices=2)
        await at_rest(scheduler)
        assert not group.worker.slots


async def test_pins_tie_together_by_name(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        free, pinned = held.group(), held.group(pin="left")
        await until(lambda: len(held.members.ready("model_worker")) == 2)
        left = held.scheduler(replica="left", instance="")
        assert left.instance == "left"
        other = held.scheduler()
        await held.claimed(left)
        await held.claimed(other)
        assert [claim.replica_id for claim in pinned.claims] == ["left"]
        assert [claim.replica_id for claim in free.claims] == [other.instance]


async def test_a_group_has_one_scheduler(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        first, second = held.scheduler(), held.scheduler()
        held.group()
        await until(lambda: held.members.ready("scheduler"))
        held.group()
        await held.claimed(first)
        await held.claimed(second)
        groups = {member.attributes["group_id"] for member in held.members.ready("scheduler")}
        assert len(groups) == 2


@pytest.mark.parametrize("manner", ["stop", "kill"])
async def test_a_dead_group_is_told_to_gateways_and_the_next_one_claimed(
    settings: ServiceSettings, manner: str
) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        before = (await held.claimed(scheduler)).epoch
        group.paused.clear()
        await held.ask(scheduler, "a", n=2)
        await until(lambda: group.plans)
        await (held.stop(group) if manner == "stop" else held.kill(group))
        failed = await failure(held, "a")
        assert (failed.code, failed.choice, failed.service) == (ErrorCode.REPLICA_LOST, -1, "scheduler")
        await until(lambda: held.members.get(scheduler.instance).state is State.STARTING)  # type: ignore[union-attr]  # there by now
        second = held.group()
        after = await held.claimed(scheduler)
        assert after.epoch > before
        await held.ask(scheduler, "b")
        await ended(second, "b")
        assert len(held.failed) == 1


async def test_a_group_that_restarts_is_claimed_anew(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(instance="w")
        await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "a")
        await until(lambda: group.plans)
        await held.kill(group)
        again = held.group(instance="w")
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await held.claimed(scheduler)
        await held.ask(scheduler, "b")
        await ended(again, "b")


@pytest.mark.parametrize("what", ["plan", "report"])
@pytest.mark.parametrize("number", [1, 3])
async def test_a_lost_message_is_noticed_and_the_group_claimed_anew(
    settings: ServiceSettings, what: str, number: int
) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(pipeline_depth=1 if number == 3 else 2), held.group()
        before = (await held.claimed(scheduler)).epoch
        setattr(group, f"drop_{what}", number)
        await held.ask(scheduler, "a", max_tokens=30, ignore_eos=True)
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await until(lambda: len(group.claims) == 2)
        assert (await held.claimed(scheduler)).epoch > before
        await held.ask(scheduler, "b")
        await ended(group, "b")
        await at_rest(scheduler)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses count as such after a few heartbeats of a test's mesh."""
    monkeypatch.setattr(pairing, "PATIENCE", 0.5)


async def several_beats(group: FakeGroup) -> None:
    """Long enough for an impatient scheduler to give the group up."""
    enough = group.beats + 10
    await until(lambda: group.beats >= enough)


@pytest.mark.usefixtures("impatient")
async def test_long_steps_are_not_taken_for_losses(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "a")
        await until(lambda: len(group.plans) == 2)
        await several_beats(group)
        group.paused.set()
        await ended(group, "a")
        assert not held.failed
        assert len(group.claims) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("reports", [0, 5])
@pytest.mark.parametrize("busy", [False, True])
async def test_a_scheduler_that_restarts_during_a_long_step_keeps_its_group(
    settings: ServiceSettings, reports: int, busy: bool
) -> None:
    """The group goes on telling how far it was with the epoch before; `busy`: plans of the new one wait behind it."""
    async with mesh(settings) as held:
        first, group = held.scheduler(instance="s"), held.group()
        await held.claimed(first)
        if reports:
            await held.ask(first, "before", max_tokens=reports, ignore_eos=True)
            await ended(group, "before")
            await at_rest(first)
        group.paused.clear()
        await held.ask(first, "long", max_tokens=50, ignore_eos=True)
        await until(lambda: group.in_step)
        await held.kill(first)
        second = held.scheduler(instance="s")
        await until(lambda: len(group.claims) == 2)
        await held.claimed(second)
        if busy:
            await held.ask(second, "new", length=30)
            await until(lambda: group.plans[-1].epoch == second.epoch)
        await several_beats(group)
        group.paused.set()
        if not busy:
            await held.ask(second, "new", length=30)
        await ended(group, "new")
        await at_rest(second)
        assert len(group.claims) == 2
        assert not held.failed


@pytest.mark.usefixtures("impatient")
async def test_a_first_plan_that_was_lost_is_noticed(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(pipeline_depth=1), held.group()
        await held.claimed(scheduler)
        group.drop_plan = 0
        await held.ask(scheduler, "a")
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await until(lambda: len(group.claims) == 2)


async def test_a_cancel_brings_slots_and_pages_back(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(prefix_cache=False), held.group()
        await held.claimed(scheduler)
        await held.ask(scheduler, "a", max_tokens=200, n=3, ignore_eos=True)
        await until(lambda: len(group.worker.slots) == 3)
        everything = Cancel(request_ids=["a"], choices=np.array([-1]), attempts=np.array([0]))
        await held.bus.publish(held.subjects.cancel, everything)
        await until(lambda: not group.worker.slots)
        await at_rest(scheduler)
        assert scheduler.core is not None
        assert scheduler.core.replica.kv.free == 64
        await held.ask(scheduler, "b", max_tokens=200, n=2, ignore_eos=True)
        await until(lambda: len(group.worker.slots) == 2)
        one = Cancel(request_ids=["b"], choices=np.array([1]), attempts=np.array([0]))
        await held.bus.publish(held.subjects.replica_inbox(scheduler.instance), one)
        await ended(group, "b")
        await at_rest(scheduler)


async def test_a_full_queue_is_told(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(max_queued_requests=2), held.group(sizes(max_slots=1))
        await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "running")
        await until(lambda: group.plans)
        for i in range(3):
            await held.ask(scheduler, f"r{i}")
        failed = await failure(held, "r2")
        assert (failed.code, failed.retry_after) == (ErrorCode.QUEUE_FULL, 1.0)
        member = await until(
            lambda: next((m for m in held.members.ready("scheduler") if m.attributes["waiting"] == 2), None)
        )
        assert (member.attributes["running"], member.attributes["max_queued"]) == (1, 2)
        group.paused.set()
        for i in range(2):
            await ended(group, f"r{i}")


async def test_a_burst_finds_the_idle_slots(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(max_queued_requests=2), held.group(sizes(max_slots=8))
        await held.claimed(scheduler)
        await held.ask(scheduler, "choices", n=5, max_tokens=20, ignore_eos=True)
        for i in range(5):
            await held.ask(scheduler, f"r{i}", max_tokens=20, ignore_eos=True)
        await ended(group, "choices", choices=5)
        for i in range(5):
            await ended(group, f"r{i}")
        assert not held.failed


async def test_a_higher_priority_displaces_a_lower_one_that_waits(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(max_queued_requests=1, policy="priority"), held.group(sizes(max_slots=1))
        await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "running")
        await until(lambda: group.plans)
        await held.ask(scheduler, "low")
        await held.ask(scheduler, "high", priority=1)
        failed = await failure(held, "low")
        assert (failed.code, failed.choice, failed.retry_after) == (ErrorCode.QUEUE_FULL, -1, 1.0)
        group.paused.set()
        await ended(group, "running")
        await ended(group, "high")
        assert len(held.failed) == 1


async def test_deadlines_are_kept_in_the_queue(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(max_slots=1))
        await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "running")
        await held.ask(scheduler, "late", time_left=-1.0)
        assert (await failure(held, "late")).code is ErrorCode.DEADLINE_EXCEEDED
        group.paused.set()
        await ended(group, "running")


async def test_a_request_for_an_older_epoch_is_sent_back(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, _ = held.scheduler(), held.group()
        await held.claimed(scheduler)
        await held.ask(scheduler, "a", epoch=scheduler.epoch - 1)
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST


async def test_what_can_never_run_is_refused_by_name(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, _ = held.scheduler(), held.group()
        await held.claimed(scheduler)
        await held.ask(scheduler, "a", length=300)
        failed = await failure(held, "a")
        assert (failed.code, failed.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "prompt")


async def test_routers_hear_of_the_cache(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        await held.claimed(scheduler)
        asked = await held.ask(scheduler, "a", length=18, max_tokens=1)
        await ended(group, "a")
        blocks = block_hashes(asked.prompt_ids, 4, cache_namespace("", "")).tolist()
        await until(lambda: [b for events in held.events for b in events.stored.tolist()] == blocks)
        assert [events.seq for events in held.events] == list(range(len(held.events)))
        assert (held.events[0].cleared, held.events[0].epoch) == (True, scheduler.epoch)
        assert not any(events.cleared for events in held.events[1:])

        await held.bus.publish(held.subjects.replica_control(scheduler.instance), KvSnapshotRequest())
        snapshot = await until(lambda: next((e for e in held.events[1:] if e.cleared), None))
        assert sorted(snapshot.stored.tolist()) == sorted(blocks)

        control = held.subjects.replica_control(scheduler.instance)
        flushed = await held.bus.request(control, FlushCache(), timeout=10)
        assert isinstance(flushed, CacheFlushed)
        assert (flushed.pages_freed, flushed.pages_in_use) == (4, 0)
        await until(lambda: sorted(held.events[-1].removed.tolist()) == sorted(blocks))


async def test_requests_of_a_gateway_that_is_gone_end(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        await held.claimed(scheduler)
        there = Presence(service="gateway", instance="gw", epoch=1, state=State.READY)
        await held.bus.publish(held.subjects.presence("gateway"), there)
        await held.ask(scheduler, "a", max_tokens=200, ignore_eos=True)
        await until(lambda: group.worker.slots)
        await held.bus.publish(held.subjects.presence("gateway"), there.model_copy(update={"state": State.GONE}))
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await at_rest(scheduler)


async def test_an_orderly_end_lets_what_runs_finish_and_hands_back_the_rest(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(max_slots=1))
        await held.claimed(scheduler)
        await held.ask(scheduler, "running", max_tokens=40, ignore_eos=True)
        await held.ask(scheduler, "waiting", max_tokens=40, ignore_eos=True)
        await until(lambda: group.worker.slots)
        worker = group.worker
        await held.stop(scheduler)
        assert (await failure(held, "waiting")).code is ErrorCode.REPLICA_LOST
        assert worker.rows[-1].finish is Finish.LENGTH
        assert len(held.failed) == 1
        await until(lambda: group.presence_attributes()["claimed_by"] == "")


async def test_wrong_books_are_repaired_when_idle(settings: ServiceSettings, caplog: pytest.LogCaptureFixture) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        await held.claimed(scheduler)
        assert scheduler.core is not None
        scheduler.core.replica.kv.pools[0].take(3)
        await held.ask(scheduler, "a")
        await ended(group, "a")
        await until(lambda: scheduler.core is not None and scheduler.core.replica.kv.free == 64)
        assert "3 pages belong to nobody" in caplog.text
        await until(lambda: len(held.events) > 1 and held.events[-1].cleared)
        await held.ask(scheduler, "b")
        await ended(group, "b")
        await at_rest(scheduler)


async def test_a_fault_in_planning_ends_the_epoch_and_not_the_service(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        await held.claimed(scheduler)
        assert scheduler.core is not None

        def broken(_now: float) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(scheduler.core._planner, "next", broken)
        await held.ask(scheduler, "a")
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await until(lambda: len(group.claims) == 2)
        await held.claimed(scheduler)
        await held.ask(scheduler, "b")
        await ended(group, "b")


AHEAD = 7200 * 10**6
"""Microseconds."""


async def test_a_group_that_knows_later_epochs_is_claimed_above_them(settings: ServiceSettings) -> None:
    """It was claimed by a scheduler of another name, on a host whose clock is two hours ahead."""
    async with mesh(settings) as held:
        group = held.group()
        other = held.scheduler()
        other._own_epoch.renew(above=other.epoch + AHEAD)
        past = (await held.claimed(other)).epoch
        await held.stop(other)
        scheduler = held.scheduler()
        assert (await held.claimed(scheduler)).epoch > past
        await held.ask(scheduler, "a")
        await ended(group, "a")


async def test_a_replica_that_is_told_of_a_higher_epoch_hands_back_what_it_ran(settings: ServiceSettings) -> None:
    """Someone took it for gone. The group does so too, or the claim of the old epoch would be half alive."""
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        before = await held.claimed(scheduler)
        group.paused.clear()
        await held.ask(scheduler, "a")
        await until(lambda: group.plans)
        gone = before.model_copy(update={"epoch": before.epoch + AHEAD, "state": State.GONE})
        await held.bus.publish(held.subjects.presence("scheduler"), gone)
        assert (await failure(held, "a")).code is ErrorCode.REPLICA_LOST
        await until(lambda: len(group.claims) == 2 and group.claims[1].epoch > gone.epoch)
        group.paused.set()
        assert (await held.claimed(scheduler)).epoch == group.claims[1].epoch
        await held.ask(scheduler, "b")
        await ended(group, "b")


async def test_news_of_a_higher_epoch_while_a_claim_is_on_its_way(settings: ServiceSettings) -> None:
    """The group answers to the claim of the old epoch, under which nothing could be planned for it any more."""
    async with mesh(settings) as held:
        scheduler = held.scheduler()
        told = asyncio.Event()

        class Meddling(FakeGroup):
            async def _claim(self, claim: Claim, envelope: Envelope) -> None:
                if not told.is_set():
                    news = Outdated(instance=claim.replica_id, epoch=claim.epoch + AHEAD)
                    await self.bus.publish(self.subjects.outdated(claim.replica_id), news)
                    await until(lambda: scheduler.epoch > claim.epoch + AHEAD)
                    told.set()
                await super()._claim(claim, envelope)

        group = Meddling(settings.model_copy(update={"instance": "w"}))
        held.start(group)
        await held.claimed(scheduler)
        assert [claim.epoch for claim in group.claims][-1] == scheduler.epoch
        await held.ask(scheduler, "a")
        await ended(group, "a")

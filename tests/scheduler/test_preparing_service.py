"""Preparations over a real bus: what is asked of the group, what gets lost, who is told."""

import numpy as np
import pytest

from radixmesh.services.scheduler.queue import preparation
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import Cancel
from tests.scheduler.harness import sizes
from tests.scheduler.mesh import at_rest, ended, failure, mesh, until


async def test_others_run_while_a_request_is_prepared(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(max_slots=1, loras=2))
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "needy", lora="a")
        await until(lambda: group.preparations.asked)
        for name in ("b", "c"):
            await held.ask(scheduler, name, length=30)
            await ended(group, name)
        assert not any(row.request_id == "needy" for row in group.worker.rows)
        told = await until(lambda: held.members.get(scheduler.instance))
        await until(lambda: held.members.get(scheduler.instance).attributes["preparing"] == 1)  # type: ignore[union-attr]
        assert told.attributes["prepared"] == 0
        await group.answer(0)
        await ended(group, "needy")
        await at_rest(scheduler)
        assert not held.failed


async def test_every_rank_answers(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=2, ranks=2))
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "needy", lora="a")
        await until(lambda: group.preparations.asked)
        await group.answer(0, rank=1)
        await held.ask(scheduler, "other", length=30)
        await ended(group, "other")
        assert not any(row.request_id == "needy" for row in group.worker.rows)
        await group.answer(0, rank=0)
        await ended(group, "needy")


@pytest.mark.parametrize("what", ["drop_prepare", "drop_prepared"])
async def test_what_the_bus_loses_is_asked_for_again(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(preparation, "ASK_AGAIN", 0.1)
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=2))
        await held.claimed(scheduler)
        setattr(group, what, True)
        await held.ask(scheduler, "needy", lora="a")
        await ended(group, "needy")
        assert group.preparations.counts == {"a": 1}
        assert not held.failed


@pytest.mark.parametrize("code", [ErrorCode.INVALID_REQUEST, ErrorCode.INTERNAL])
async def test_a_failure_is_told_by_name(settings: ServiceSettings, code: ErrorCode) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=2))
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "bad", lora="a", n=2)
        await held.ask(scheduler, "good", lora="b")
        await until(lambda: len(group.preparations.asked) == 2)
        await group.answer(0, code=code)
        await group.answer(1)
        failed = await failure(held, "bad")
        assert (failed.code, failed.message, failed.param) == (code, "the test wanted it", "lora")
        await ended(group, "good")
        await at_rest(scheduler)
        assert len(held.failed) == 1


async def test_a_kind_that_the_group_does_not_prepare(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, _ = held.scheduler(), held.group()
        await held.claimed(scheduler)
        await held.ask(scheduler, "needy", lora="a")
        failed = await failure(held, "needy")
        assert (failed.code, failed.param) == (ErrorCode.INVALID_REQUEST, "lora")


async def test_a_cancel_while_preparing(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=1))
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "gone", lora="a")
        await until(lambda: group.preparations.asked)
        cancel = Cancel(request_ids=["gone"], choices=np.array([-1]), attempts=np.array([0]))
        await held.bus.publish(held.subjects.cancel, cancel)
        await at_rest(scheduler)
        await group.answer(0)
        group.answering.set()
        await held.ask(scheduler, "next", lora="a")
        await ended(group, "next")
        await held.ask(scheduler, "other", lora="b")
        await ended(group, "other")
        assert group.preparations.counts == {"a": 1, "b": 1}


@pytest.mark.parametrize("manner", ["stop", "kill", "lost plan"])
async def test_a_request_that_was_being_prepared_when_the_claim_ended_can_come_again(
    settings: ServiceSettings, manner: str
) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=1), instance="w")
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "needy", lora="a")
        await until(lambda: group.preparations.asked)
        if manner == "lost plan":
            group.drop_plan = 0
            await held.ask(scheduler, "other", length=30)
        else:
            await (held.stop(group) if manner == "stop" else held.kill(group))
        assert (await failure(held, "needy")).code is ErrorCode.REPLICA_LOST
        again = group if manner == "lost plan" else held.group(sizes(loras=1), instance="w")
        await held.claimed(scheduler)
        again.answering.set()
        await held.ask(scheduler, "needy", lora="a", attempt=1)
        await ended(again, "needy")
        assert again.preparations.counts == {"a": 1}
        await at_rest(scheduler)


async def test_a_replica_that_ends_hands_back_what_is_being_prepared(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group(sizes(loras=1))
        await held.claimed(scheduler)
        group.answering.clear()
        await held.ask(scheduler, "needy", lora="a")
        await until(lambda: group.preparations.asked)
        await held.stop(scheduler)
        assert (await failure(held, "needy")).code is ErrorCode.REPLICA_LOST

"""The scheduler on a real bus."""

from scheduler.mesh import mesh, until

from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.messages import Finish


async def test_a_request_runs_to_its_end(settings: ServiceSettings) -> None:
    async with mesh(settings) as held:
        scheduler, group = held.scheduler(), held.group()
        member = await held.claimed(scheduler)
        assert member.model == "toy"
        assert member.attributes["group_id"] == group.instance
        await held.ask(scheduler, "a", max_tokens=12)
        await until(lambda: group.worker.rows and group.worker.rows[-1].finish is not Finish.RUNNING)
        await until(lambda: scheduler.core is not None and scheduler.core.idle)
        assert not group.worker.slots
        assert scheduler.core.check() == []

"""Two replicas behind one tokenizer, all real: as many cache hits as one replica would have, and shared load."""

import asyncio
import random
from pathlib import Path

import pytest

from radixmesh.services.model_worker.devices.cpu.native import native
from radixmesh.shared.config import ServiceSettings
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.e2e.local_mesh import Answer, local_mesh, places

PREFIX, TAIL = 96, 8
GROUPS, ROUNDS = 10, 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two") / "tiny"
    make_checkpoint(path, "llama", num_hidden_layers=1)
    make_tokenizer(path)
    native()  # if the kernels have to be compiled first, not while the mesh is waited for
    return path


def prompt(group: int, number: int) -> list[int]:
    """Of `group`'s prefix and a tail of its own."""
    draw = random.Random(group)
    own = random.Random(1000 * group + number + 1)
    return [draw.randrange(3, 512) for _ in range(PREFIX)] + [own.randrange(3, 512) for _ in range(TAIL)]


def hit_rate(answers: list[Answer]) -> float:
    return sum(answer.cached_tokens for answer in answers) / (len(answers) * (PREFIX + TAIL))


async def grouped(settings: ServiceSettings, checkpoint: Path, *replicas: str) -> list[Answer]:
    """Rounds of one request of every group, in another order each time, all of a round at once."""
    async with local_mesh(settings, checkpoint) as mesh:
        await mesh.start(*replicas)
        answers = []
        for number in range(ROUNDS):
            order = random.Random(number).sample(range(GROUPS), GROUPS)
            answers += await asyncio.gather(*(mesh.ask(prompt(group, number)) for group in order))
        return answers


async def test_two_replicas_hit_their_caches_as_often_as_one(settings: ServiceSettings, checkpoint: Path) -> None:
    one = await grouped(settings, checkpoint, "r0")
    apart = settings.model_copy(update={"namespace": settings.namespace + "2"})
    two = await grouped(apart, checkpoint, "r0", "r1")
    best = (ROUNDS - 1) / ROUNDS * PREFIX / (PREFIX + TAIL)  # all but each group's first
    assert hit_rate(one) == pytest.approx(best)
    assert hit_rate(two) > 0.9 * hit_rate(one)
    assert set(places(one)) == {"r0"}
    assert min(places(two)[name] for name in ("r0", "r1")) >= 0.3 * len(two)


async def test_a_hot_prefix_leaves_no_replica_idle(settings: ServiceSettings, checkpoint: Path) -> None:
    """Nine of ten requests share one prefix, and come faster than one replica serves them."""
    async with local_mesh(settings, checkpoint) as mesh:
        await mesh.start("r0", "r1")
        await mesh.ask(prompt(0, 0))
        work = [prompt(0 if number % 10 else 1 + number, number) for number in range(1, 81)]
        answers = await asyncio.gather(*(mesh.ask(tokens, 24) for tokens in work))
        assert min(places(answers)[name] for name in ("r0", "r1")) >= 0.3 * len(answers)
        hot = [answer for answer, tokens in zip(answers, work, strict=True) if tokens[:PREFIX] == work[0][:PREFIX]]
        assert hit_rate(hot) > 0.8 * PREFIX / (PREFIX + TAIL)  # it is computed once on each, and then found


async def test_caches_are_known_again_after_a_restart(settings: ServiceSettings, checkpoint: Path) -> None:
    """A scheduler that starts anew has forgotten everything, and a tokenizer that does so learns everything."""
    async with local_mesh(settings, checkpoint) as mesh:
        first, second = await mesh.start("r0", "r1")
        warm = [await mesh.ask(prompt(group, 0)) for group in range(6)]
        assert set(places(warm)) == {"r0", "r1"}
        home = {group: warm[group].routed.replica_id for group in range(6) if warm[group].routed}  # type: ignore[union-attr]

        await mesh.stop(second)
        second = mesh.schedule("r1")
        await mesh.follows(mesh.tokenizer, first, second)
        late = mesh.tokenize("t1")
        await mesh.follows(late, first, second)
        await mesh.stop(mesh.tokenizer)
        for group in range(6):
            again = await mesh.ask(prompt(group, 1))
            assert again.routed is not None
            if home[group] == "r0":  # which the new tokenizer has asked for its cache
                assert (again.routed.replica_id, again.routed.reason) == ("r0", "prefix")
                assert again.cached_tokens == PREFIX
            else:
                assert again.routed.reason == "least_loaded"
                assert again.cached_tokens == 0
            third = await mesh.ask(prompt(group, 2))
            assert third.routed is not None
            assert (third.routed.replica_id, third.cached_tokens) == (again.routed.replica_id, PREFIX)

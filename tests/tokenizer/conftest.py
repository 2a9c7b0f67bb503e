"""Tokenizers of a small model on a real bus, and everyone else."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.service import Tokenizer
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.config import ServiceSettings
from tests.support import starter, until
from tests.tokenizer.scripted import SIZES, Mesh
from tests.tokenizer.small_tokenizers import save_chat_model

Start = Callable[..., Awaitable[Tokenizer]]


@pytest.fixture
async def mesh(settings: ServiceSettings) -> AsyncIterator[Mesh]:
    bus = await Bus.connect(settings, "mesh")
    found = Mesh(bus, settings.namespace)
    await found.listen()
    yield found
    await bus.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
async def start(settings: ServiceSettings, model: Path) -> AsyncIterator[Start]:
    async with starter(settings, model, lambda values: Tokenizer(TokenizerSettings(**values))) as begin:
        yield begin


@pytest.fixture
async def serving(mesh: Mesh, start: Start) -> Tokenizer:
    """Tokenizer t1, with replicas a and b and detokenizers d1 and d2."""
    unit = await start("t1")
    await mesh.ready("t1")
    for name in ("a", "b"):
        await mesh.beat("scheduler", name, attributes=SIZES)
    for name in ("d1", "d2"):
        await mesh.beat("detokenizer", name)
    await until(lambda: len(unit.members.ready("scheduler")) == 2 and len(unit.members.ready("detokenizer")) == 2)
    return unit

"""The queue's bound as clients meet it: what fits slots and queue is served, however suddenly it comes."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.serving import ServeProcess

SLOTS, LIMIT = 4, 2
BOUNDS = {"RADIXMESH_MAX_SLOTS": str(SLOTS), "RADIXMESH_MAX_QUEUED_REQUESTS": str(LIMIT)}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    path = tmp_path_factory.mktemp("queue") / "tiny"
    make_checkpoint(path, "llama")
    make_tokenizer(path)
    with (
        ServeProcess("--model", str(path), "--dtype", "float32", environ=BOUNDS) as mesh,
        openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def ask(client: openai.OpenAI, prompts: int, n: int = 1, max_tokens: int = 8) -> list[Any]:
    texts = [f"prompt number {number}" for number in range(prompts)]
    return client.completions.create(model="tiny", prompt=texts, n=n, max_tokens=max_tokens).choices


@pytest.mark.parametrize(("prompts", "n"), [(3, 1), (SLOTS + LIMIT, 1), (1, SLOTS + LIMIT), (2, 3)])
def test_what_fits_slots_and_queue_is_served_at_once(client: openai.OpenAI, prompts: int, n: int) -> None:
    for _ in range(5):
        assert len(ask(client, prompts, n)) == prompts * n


def test_more_choices_than_ever_fit_are_refused_as_a_whole(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match=f"{SLOTS + LIMIT + 1} choices are more than"):
        ask(client, 1, SLOTS + LIMIT + 1)
    assert len(ask(client, 1)) == 1


def test_more_prompts_than_fit_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError, match="sequences wait"):
        ask(client, 100, max_tokens=64)
    assert len(ask(client, 1)) == 1

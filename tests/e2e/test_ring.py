"""The whole ring on a real checkpoint: what transformers says comes back over HTTP, and nothing leaks."""

import asyncio
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.serving import ServeProcess, wait_for

FLAGS = ("--dtype", "float32", "--max-model-len", "256", "--tokenizers", "2", "--detokenizers", "2", "--gateways", "2")
TOLD = 1.5
"""Seconds in which every service has told its load at least once."""
BEATS = {"RADIXMESH_HEARTBEAT_INTERVAL": "0.5"}
PROMPTS = ["Once upon a time", "def attend(query):", '{"name": "radix"', "The quick brown fox jumps over the lazy dog"]


class Reference:
    """transformers on the same checkpoint."""

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self._model = model
        self._tokenizer = AutoTokenizer.from_pretrained(path)

    def complete(self, prompt: str, max_tokens: int) -> str:
        ids = self._tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            out = self._model.generate(
                ids, do_sample=False, max_new_tokens=max_tokens, eos_token_id=None, pad_token_id=0
            )
        return self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def chat(self, messages: list[dict[str, str]], max_tokens: int) -> str:
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.complete(prompt, max_tokens)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    path = tmp_path_factory.mktemp("ring") / "tiny-qwen3"
    model = make_checkpoint(path, "qwen3", shard_size="100KB")
    make_tokenizer(path)
    return Reference(path, model)


@pytest.fixture(scope="module")
def mesh(reference: Reference) -> Iterator[ServeProcess]:
    """Two of everything that can be doubled but the replica."""
    with ServeProcess("--model", str(reference.path), *FLAGS, environ=BEATS) as mesh:
        yield mesh


def members(mesh: ServeProcess, service: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{mesh.url}/v1/mesh", timeout=10) as answer:  # noqa: S310
        return [member for member in json.load(answer)["data"] if member["service"] == service]


def scheduler(mesh: ServeProcess) -> dict[str, Any]:
    return members(mesh, "scheduler")[0]["attributes"]


def idle(mesh: ServeProcess) -> bool:
    """Nothing runs or waits, and every page is free or in the prefix cache."""
    load = scheduler(mesh)
    whole = load["free_pages"] + load["cached_pages"] == load["num_pages"]
    return whole and (load["running"], load["waiting"]) == (0, 0)


def scheduler_pages_are_all_free(mesh: ServeProcess) -> bool:
    wait_for(lambda: scheduler(mesh)["cached_pages"] == 0, 10, "the prefix cache to be empty")
    return scheduler(mesh)["free_pages"] == scheduler(mesh)["num_pages"]


def flush(mesh: ServeProcess) -> list[dict[str, Any]]:
    request = urllib.request.Request(f"{mesh.url}/flush_cache", method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.load(answer)["replicas"]


def client(mesh: ServeProcess, gateway: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{mesh.state['urls'][gateway]}/v1", api_key="none", max_retries=0)


async def complete(api: openai.AsyncOpenAI, prompt: str, max_tokens: int = 24, **fields: Any) -> str:
    extra = {"ignore_eos": True, **fields.pop("extra_body", {})}
    answer = await api.completions.create(
        model="tiny-qwen3", prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body=extra, **fields
    )
    return answer.choices[0].text


async def test_greedy_text_equals_transformers_alone_and_in_a_crowd(mesh: ServeProcess, reference: Reference) -> None:
    async with client(mesh, 0) as one, client(mesh, 1) as two:
        alone = [await complete(one, prompt) for prompt in PROMPTS]
        crowd = await asyncio.gather(*(complete((one, two)[i % 2], PROMPTS[i % 4]) for i in range(24)))
    expected = [reference.complete(prompt, 24) for prompt in PROMPTS]
    assert alone == expected
    assert crowd == [expected[i % 4] for i in range(24)]


async def test_work_is_shared_by_those_that_are_doubled(mesh: ServeProcess) -> None:
    """Two tokenizers by queue group, two detokenizers by assignment, two gateways side by side."""
    async with client(mesh, 0) as one, client(mesh, 1) as two:
        await asyncio.gather(*(complete((one, two)[i % 2], f"{i} is a number", 4) for i in range(40)))

    def all_worked() -> bool:
        doubled = members(mesh, "tokenizer") + members(mesh, "detokenizer")
        counts = [member["attributes"]["requests"] for member in doubled]
        return len(counts) == 4 and min(counts) > 0

    wait_for(all_worked, 10, "both tokenizers and both detokenizers to have worked")
    assert len(members(mesh, "gateway")) == 2


async def test_streamed_chat_equals_transformers(mesh: ServeProcess, reference: Reference) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Héllo, wörld 🙂?"}]
    async with client(mesh) as api:
        stream = await api.chat.completions.create(
            model="tiny-qwen3",
            messages=messages,
            max_tokens=40,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == reference.chat(messages, 40)
    assert chunks[-1].usage.completion_tokens == 40
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]


async def test_stop_strings_end_the_text_before_them(mesh: ServeProcess, reference: Reference) -> None:
    whole = reference.complete(PROMPTS[3], 60)
    stop = whole[20:23]
    async with client(mesh) as api:
        text = await complete(api, PROMPTS[3], 60, stop=[stop, "never there"])
    assert text == whole[: whole.index(stop)]
    wait_for(lambda: idle(mesh), 10, "pages and slot to come back")


async def test_seeds_and_choices(mesh: ServeProcess) -> None:
    async def draw(seed: int, n: int) -> list[str]:
        answer = await api.completions.create(
            model="tiny-qwen3", prompt="Once", max_tokens=16, temperature=1.0, seed=seed, n=n,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        return [choice.text for choice in sorted(answer.choices, key=lambda choice: choice.index)]

    async with client(mesh) as api:
        first, again, other = await draw(1, 3), await draw(1, 3), await draw(2, 3)
    assert first == again
    assert len(set(first)) == 3
    assert first != other


async def test_the_models_own_sampling_defaults_hold_unless_told_otherwise(
    reference: Reference, tmp_path: Path
) -> None:
    """generation_config.json asks for top_k = 1, which makes sampling greedy."""
    copy = tmp_path / "tiny-qwen3"
    shutil.copytree(reference.path, copy)
    config = json.loads((copy / "generation_config.json").read_text())
    (copy / "generation_config.json").write_text(json.dumps({**config, "top_k": 1}))

    async def draw(api: openai.AsyncOpenAI, **extra: Any) -> str:
        answer = await api.completions.create(
            model="tiny-qwen3", prompt=PROMPTS[0], max_tokens=24, seed=3, extra_body={"ignore_eos": True, **extra}
        )
        return answer.choices[0].text

    with ServeProcess("--model", str(copy), *FLAGS[:4]) as mesh:
        async with client(mesh) as api:
            assert await draw(api) == reference.complete(PROMPTS[0], 24)
            assert await draw(api, top_k=0) != reference.complete(PROMPTS[0], 24)


async def test_cached_tokens_are_told(mesh: ServeProcess) -> None:
    prompt = "She went to the library, and there the books were sorted by their first letters, then by age. " * 2
    async with client(mesh) as api:
        counts = []
        for _ in range(2):
            answer = await api.completions.create(model="tiny-qwen3", prompt=prompt, max_tokens=2, temperature=0)
            counts.append((answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens))
        (length, first), (_, second) = counts
        assert first == 0
        assert second == (length - 1) // 16 * 16
        flushed = await asyncio.to_thread(flush, mesh)
        assert flushed[0]["pages_freed"] > 0
        assert scheduler_pages_are_all_free(mesh)
        answer = await api.completions.create(model="tiny-qwen3", prompt=prompt, max_tokens=2, temperature=0)
        assert answer.usage.prompt_tokens_details.cached_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_closes_its_sending_side_gets_its_answer(mesh: ServeProcess, stream: bool) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 120, "temperature": 0, "ignore_eos": True, "stream": stream}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(mesh.url.rpartition(":")[2]))
    writer.write(f"{head}\r\n\r\n".encode() + data)
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = (await reader.read()).decode()
    writer.close()
    events = [json.loads(line[line.index("{") :]) for line in answer.splitlines() if "{" in line]
    async with client(mesh) as api:
        assert "".join(event["choices"][0]["text"] for event in events) == await complete(api, body["prompt"], 120)


async def test_tenants_of_different_keys_share_no_pages(mesh: ServeProcess) -> None:
    prompt = "He counted the ships that came into the harbour, one by one, and wrote their names on a slate. " * 2

    async def cached(api: openai.AsyncOpenAI, **fields: str) -> int:
        answer = await api.completions.create(model="", prompt=prompt, max_tokens=1, extra_body=fields)
        return answer.usage.prompt_tokens_details.cached_tokens

    async with client(mesh) as api:
        assert await cached(api, extra_key="one") == 0
        assert await cached(api, extra_key="two") == 0
        assert await cached(api, cache_salt="one") == 0
        assert await cached(api, cache_salt="one", extra_key="one") == 0
        assert await cached(api, extra_key="one") > 0
        assert await cached(api, cache_salt="one") > 0


async def test_a_client_that_leaves_gives_everything_back(mesh: ServeProcess) -> None:
    async with client(mesh) as api:
        streams = [
            await api.completions.create(
                model="tiny-qwen3", prompt=f"{i} " * 30, max_tokens=180, stream=True, extra_body={"ignore_eos": True}
            )
            for i in range(8)
        ]
        for stream in streams:
            await anext(aiter(stream))
            await stream.close()
        waiting = [asyncio.create_task(complete(api, "left without an answer", 180)) for _ in range(4)]
        await asyncio.sleep(0.2)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(TOLD)  # load is told by heartbeats: see one from after all that
    wait_for(lambda: idle(mesh), 10, "pages and slots to come back")
    steps = scheduler(mesh)["steps"]
    await asyncio.sleep(TOLD)
    assert scheduler(mesh)["steps"] == steps  # nothing runs on unseen


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"stop_regex": "a+"}, 400, "stop_regex"),
        ({"repetition_penalty": 1e-320}, 400, "repetition_penalty"),
        ({"temperature": 99}, 400, "temperature"),
        ({"prompt": "word " * 2000}, 400, "256"),
        ({"prompt": [1, 2, 99999]}, 400, "99999"),
        ({"max_tokens": 10_000}, 400, "max_tokens"),
        ({"prompt": ""}, 400, "prompt"),
    ],
)
async def test_errors_name_what_is_wrong(mesh: ServeProcess, fields: dict[str, Any], status: int, words: str) -> None:
    request = {"model": "tiny-qwen3", "prompt": "fine", "max_tokens": 3, **fields}
    async with client(mesh) as api:
        with pytest.raises(openai.APIStatusError) as caught:
            await api.completions.create(extra_body=request, model="tiny-qwen3", prompt="")
        assert caught.value.status_code == status
        assert words in str(caught.value)
        assert await complete(api, "fine", 3)  # and the next one is served

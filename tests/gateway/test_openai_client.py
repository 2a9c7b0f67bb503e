"""The official `openai` client against the gateway, unchanged."""

import json
from typing import Any

import aiohttp
import openai
import pytest

from tests.gateway.ring import CACHED_TOKENS, MODEL, PROMPT_TOKENS, Ring, token, words


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_chat_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=user("echo:5"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].id.startswith("chatcmpl-")
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", MODEL)}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.role for c in chunks[1:] if c.choices] == [None] * (len(chunks) - 2)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == words(5)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (PROMPT_TOKENS, 5, PROMPT_TOKENS + 5)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == CACHED_TOKENS
    assert chunks[-1].choices == []


async def test_chat_in_one_piece_with_choices(client: openai.AsyncOpenAI, ring: Ring) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "be brief"}, *user("echo:9")],
        n=2,
        max_completion_tokens=4,
        seed=11,
        user="someone",
        metadata={"a": "b"},
        extra_body={"top_k": -1, "min_p": 0.1, "chat_template_kwargs": {"enable_thinking": False}, "cache_salt": "s"},
    )
    assert answer.object == "chat.completion"
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert [choice.message.content for choice in answer.choices] == [words(4), words(4, choice=1)]
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (PROMPT_TOKENS, 8)
    submit = ring.submits[0]
    assert submit.messages == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "echo:9"}]
    params = submit.work.params
    assert (params.seed, params.top_k, params.min_p, params.n, params.max_tokens) == (11, 0, 0.1, 2, 4)
    assert (submit.work.cache_salt, submit.chat_template_kwargs) == ("s", {"enable_thinking": False})


async def test_chat_takes_text_parts_and_has_no_token_limit_of_its_own(client: openai.AsyncOpenAI, ring: Ring) -> None:
    parts = [{"type": "text", "text": "echo:2"}, {"type": "text", "text": "more"}]
    await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert ring.submits[0].messages == [{"role": "user", "content": "echo:2\nmore"}]
    assert ring.submits[0].work.params.max_tokens is None


async def test_chat_streams_choices_side_by_side(client: openai.AsyncOpenAI) -> None:
    texts = {0: "", 1: "", 2: ""}
    ends: list[int] = []
    stream = await client.chat.completions.create(model=MODEL, messages=user("echo:6"), n=3, stream=True)
    async for chunk in stream:
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert texts == {index: words(6, index) for index in range(3)}
    assert sorted(ends) == [0, 1, 2]


async def test_completions_of_several_prompts(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model=MODEL, prompt=["echo:2", "echo:3"], n=2, echo=True)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == [
        "echo:2" + words(2),
        "echo:2" + words(2, 1),
        "echo:3" + words(3),
        "echo:3" + words(3, 1),
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2 * PROMPT_TOKENS, 10)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2 * CACHED_TOKENS


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]]])
async def test_completions_of_token_ids(client: openai.AsyncOpenAI, ring: Ring, prompt: list[int]) -> None:
    answer = await client.completions.create(model=MODEL, prompt=prompt)
    sent = [submit.token_ids.tolist() for submit in ring.submits if submit.token_ids is not None]
    assert sorted(sent) == ([prompt] if isinstance(prompt[0], int) else prompt)
    assert {choice.text for choice in answer.choices} == {words(3)}
    assert {submit.work.params.max_tokens for submit in ring.submits} == {16}


async def test_only_a_token_limit_of_the_clients_own_must_fit(client: openai.AsyncOpenAI, ring: Ring) -> None:
    await client.completions.create(model=MODEL, prompt="echo:1")
    await client.completions.create(model=MODEL, prompt="echo:1", max_tokens=16)
    chat: Any = [{"role": "user", "content": "echo:1"}]
    await client.chat.completions.create(model=MODEL, messages=chat, max_tokens=16)
    await client.chat.completions.create(model=MODEL, messages=chat, max_completion_tokens=16)
    assert [submit.cut_to_fit for submit in ring.submits] == [True, False, False, False]


async def test_completions_stream_several_prompts(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model=MODEL, prompt=["echo:2", "echo:4"], echo=True, stream=True, stream_options={"include_usage": True}
    )
    texts = {0: "", 1: ""}
    usage = None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: "echo:2" + words(2), 1: "echo:4" + words(4)}
    assert usage is not None
    assert usage.completion_tokens == 6


async def test_text_keeps_every_character(client: openai.AsyncOpenAI) -> None:
    whole = await client.completions.create(model=MODEL, prompt="unicode")
    stream = await client.completions.create(model=MODEL, prompt="unicode", stream=True)
    pieces = [chunk.choices[0].text async for chunk in stream]
    assert whole.choices[0].text == "".join(pieces) == 'é"\\\n 好!'


LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""All that `str.splitlines`, and so some clients, take for the end of a line."""


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
async def test_no_line_end_in_a_text_cuts_an_event(http: aiohttp.ClientSession, path: str) -> None:
    script = f"say:a{LINE_ENDS}é"
    body = {"model": MODEL, "prompt": script, "echo": True} if path == "completions" else {"messages": user(script)}
    texts = []
    for stream in (True, False):
        async with http.post(f"/v1/{path}", json={"model": MODEL, **body, "stream": stream}) as response:
            lines = [line for line in (await response.text()).splitlines() if line]
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]
        assert stream or len(events) == 1
        parts = [event["choices"][0] for event in events]
        if path == "completions":
            texts.append("".join(part["text"] for part in parts))
        else:
            said = [part["delta" if stream else "message"].get("content") for part in parts]
            texts.append("".join(filter(None, said)))
        assert parts[-1]["stop_reason"] == script.removeprefix("say:")
    assert texts == [(script if path == "completions" else "") + script.removeprefix("say:")] * 2


async def test_stop_string_is_told(client: openai.AsyncOpenAI, ring: Ring) -> None:
    answer = await client.completions.create(model=MODEL, prompt="stop", stop="END")
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == (words(2), "stop")
    assert choice.model_dump()["stop_reason"] == "END"
    assert ring.submits[0].work.params.stop == ["END"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "limit", "reason", "matched"),
    [("echo:3", None, None, token(0, 2)), ("echo:3", 2, None, None), ("stop", None, "END", "END")],
    ids=["the model's own end", "length", "stop string"],
)
async def test_what_ended_the_text_is_told_whole_and_streamed(
    client: openai.AsyncOpenAI, prompt: str, limit: int | None, reason: str | None, matched: str | int | None
) -> None:
    whole = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=limit)
    stream = await client.completions.create(model=MODEL, prompt=prompt, max_tokens=limit, stream=True)
    *_, last = [chunk async for chunk in stream]
    for choice in (whole.choices[0].model_dump(), last.choices[0].model_dump()):
        assert (choice["stop_reason"], choice["matched_stop"]) == (reason, matched)


async def test_thoughts_have_a_place_of_their_own(client: openai.AsyncOpenAI, ring: Ring) -> None:
    """Across a lost replica, with choices; no chunk has both, and none is said twice."""
    answer = await client.chat.completions.create(model=MODEL, messages=user("think"), n=2)
    for choice in answer.choices:
        told = choice.message.model_dump()
        assert (told["reasoning_content"], told["content"]) == ('hm, "so"', words(2, choice.index))
    assert {submit.separate_reasoning for submit in ring.submits} == {True}
    assert len(ring.submits) == 2
    thoughts, texts, last = ["", ""], ["", ""], [False, False]
    first: set[int] = set()
    async for chunk in await client.chat.completions.create(model=MODEL, messages=user("think"), n=2, stream=True):
        (choice,) = chunk.choices
        delta = choice.delta.model_dump(exclude_unset=True)
        assert (delta.get("role") == "assistant") == (choice.index not in first)
        first.add(choice.index)
        assert not (delta["reasoning_content"] and delta.get("content"))
        assert not (delta["reasoning_content"] and texts[choice.index])
        thoughts[choice.index] += delta["reasoning_content"] or ""
        texts[choice.index] += delta.get("content") or ""
        last[choice.index] = choice.finish_reason == "stop"
    assert (thoughts, texts, last) == (['hm, "so"'] * 2, [words(2), words(2, 1)], [True, True])


async def test_an_answer_may_be_thoughts_alone_or_none(client: openai.AsyncOpenAI, ring: Ring) -> None:
    for text, reasoning, content in (("muse", "hm, hm", None), ("echo:1", None, words(1))):
        answer = await client.chat.completions.create(model=MODEL, messages=user(text))
        told = answer.choices[0].message.model_dump()
        assert (told["reasoning_content"], told["content"]) == (reasoning, content)
    chunks = [
        chunk.choices[0].delta.model_dump(exclude_unset=True)
        async for chunk in await client.chat.completions.create(model=MODEL, messages=user("echo:3"), stream=True)
    ]
    assert all(delta["reasoning_content"] is None for delta in chunks)


async def test_thoughts_may_be_left_where_they_are(client: openai.AsyncOpenAI, ring: Ring) -> None:
    await client.chat.completions.create(model=MODEL, messages=user("echo:1"), extra_body={"separate_reasoning": False})
    await client.completions.create(model=MODEL, prompt="echo:1")
    assert [submit.separate_reasoning for submit in ring.submits] == [False, False]
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(model=MODEL, messages=user("hi"), extra_body={"separate_reasoning": "yes"})
    assert wrong.value.param == "separate_reasoning"


async def test_nothing_is_added_to_messages(client: openai.AsyncOpenAI, ring: Ring) -> None:
    call: Any = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat: Any = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": None, "tool_calls": [call], "name": None, "audio": None},
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}, {"type": "text", "text": "Sorry."}]},
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"role": "user", "content": "echo:1", "name": "bob"},
    ]
    await client.chat.completions.create(model=MODEL, messages=chat)
    assert ring.submits[0].messages == [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "assistant", "content": "I cannot.", "refusal": "I cannot."},
        {"role": "assistant", "content": "No.\nSorry."},
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"role": "user", "content": "echo:1", "name": "bob"},
    ]


async def test_a_seed_is_drawn_once(client: openai.AsyncOpenAI, ring: Ring) -> None:
    await client.completions.create(model=MODEL, prompt="lost:2")
    await client.completions.create(model=MODEL, prompt="echo:1")
    seeds = [submit.work.params.seed for submit in ring.submits]
    assert seeds[0] == seeds[1] == seeds[2] != seeds[3]


async def test_models(client: openai.AsyncOpenAI) -> None:
    listed = [model async for model in client.models.list()]
    assert [(model.id, model.object, model.owned_by) for model in listed] == [(MODEL, "model", "radixmesh")]
    one = await client.models.retrieve(MODEL)
    assert one.created > 1_700_000_000
    assert one.model_dump()["max_model_len"] == 512
    assert one.model_dump()["root"] == MODEL


async def test_the_clients_own_exceptions(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.models.retrieve("nobody")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        await client.chat.completions.create(model=MODEL, messages=user("hi"), temperature=3.5)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.RateLimitError):
        await client.completions.create(model=MODEL, prompt="fail:queue_full")
    stream = await client.completions.create(model=MODEL, prompt="failmid:internal_error", stream=True)
    with pytest.raises(openai.APIError, match="told internal_error"):
        [chunk async for chunk in stream]

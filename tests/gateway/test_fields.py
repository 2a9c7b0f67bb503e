"""Each field that clients of such servers send: honoured, refused by name, or unable to change the answer."""

import itertools
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.services.gateway.faces.openai.chat import chat_job
from radixmesh.services.gateway.faces.openai.completions import completion_job
from radixmesh.services.gateway.faces.openai.schemas import ChatRequest, CompletionRequest
from radixmesh.services.gateway.fields.known import FIELDS
from radixmesh.services.gateway.fields.sampling import Sampling
from radixmesh.shared.errors import RequestError
from tests.gateway.ring import MODEL, Ring

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES: dict[str, dict[str, Any]] = {
    TEXT: {"model": MODEL, "prompt": "echo:1"},
    CHAT: {"model": MODEL, "messages": [{"role": "user", "content": "echo:1"}]},
}
ENDPOINTS = {TEXT: (completion_job, CompletionRequest), CHAT: (chat_job, ChatRequest)}

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
EVERYWHERE: dict[str, Any] = {
    "stop_regex": "Fr.*",
    "no_stop_trim": True,
    "include_stop_str_in_output": True,
    "truncate_prompt_tokens": 3,
    "structural_tag": "{}",
    "custom_logit_processor": "{}",
    "session_params": {"id": "s"},
    "return_hidden_states": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "beam_width": 4,
    "use_beam_search": True,
    "best_of": 2,
    "length_penalty": 0.5,
    "chat_template": "{{ '1+1=' }}",
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "thinking_budget": 100,
    "thinking_token_budget": 100,
    "enable_thinking": False,
    "logits_processors": ["x"],
    "rid": "r",
    "typical_p": 0.9,
    "xtc_probability": 0.5,
    "xtc_threshold": 0.2,
    "dry_multiplier": 0.8,
    "dry_base": 2,
    "mirostat": 2,
    "regex": "a+",
    "ebnf": "root ::= 'a'",
    "json_schema": SCHEMA,
    "guided_json": SCHEMA,
    "guided_regex": "a+",
    "guided_choice": ["a", "b"],
    "guided_grammar": "root ::= 'a'",
    "structured_outputs": {"regex": "a+"},
    "response_format": {"type": "json_object"},
    "logprobs": 0,
    "top_logprobs": 2,
    "prompt_logprobs": 0,
    "return_logprob": True,
    "top_logprobs_num": 1,
    "token_ids_logprob": [1],
    "tools": [TOOL],
    "tool_choice": "required",
    "functions": [TOOL["function"]],
    "function_call": {"name": "f"},
    "suffix": "end",
    "lora_path": "adapter",
    "audio": {"voice": "alloy"},
    "modalities": ["text", "audio"],
    "kv_transfer_params": {"do_remote_decode": True},
    "bootstrap_host": "10.0.0.1",
    "data_parallel_rank": 1,
    "image_data": ["x"],
    "input_embeds": [[0.5]],
    "prompt_embeds": "x",
    "return_prompt_token_ids": True,
    "allowed_token_ids": [1, 2],
    "bad_words": ["x"],
    "custom_params": {"a": 1},
    "repeat_penalty": 1.1,
    "no_repeat_ngram_size": 2,
    "extra_body": {"top_k": 1},
    "stop_sequences": ["x"],
    "stop_words": ["x"],
    "think": True,
    "format": "json",
    "top_n_sigma": 1.5,
    "samplers": ["top_k"],
    "banned_strings": ["x"],
    "negative_prompt": "x",
    "transforms": ["middle-out"],
    "max_output_tokens": 5,
    "random_seed": 1,
    "system": "Be brief.",
    "repeat_last_n": 32,
    "guidance_scale": 1.5,
    "ban_eos_token": True,
    "t_max_predict_ms": 5,
    "context_length_exceeded_behavior": "truncate",
    "prompt_truncate_len": 100,
    "models": ["a", "b"],
    "enable_search": True,
    "search_parameters": {"mode": "on"},
}
CHAT_ONLY = {
    "continue_final_message": True,
    "add_generation_prompt": False,
    "documents": [{"title": "t", "text": "x"}],
    "reasoning_effort": "high",
    "chat_template_kwargs": {"a": 1},
    "messages": [{"role": "user", "content": "hi"}],
}
TEXT_ONLY = {"echo": True, "prompt": "Once"}
HARMLESS: dict[str, Any] = {
    "user": "someone",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "spaces_between_special_tokens": False,
    "guided_decoding_backend": "xgrammar",
    "no_server_knows_this": {"at": "all"},
    "extra": "x",
    "priority": 3,
    "separate_reasoning": False,
}


async def send(http: aiohttp.ClientSession, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http.post(path, json={**BODIES[path], **fields}) as response:
        return response.status, await response.json()


async def test_what_would_change_the_answer_is_refused_by_name(http: aiohttp.ClientSession, ring: Ring) -> None:
    cases = [(path, *field) for path in BODIES for field in EVERYWHERE.items()]
    cases += [(TEXT, *field) for field in CHAT_ONLY.items()] + [(CHAT, *field) for field in TEXT_ONLY.items()]
    for path, name, value in cases:
        status, body = await send(http, path, {name: value})
        assert (status, body.get("param")) == (400, name), (path, body)
        assert name in body["message"]
    assert ring.submits == []


async def test_what_cannot_change_the_answer_is_ignored(http: aiohttp.ClientSession) -> None:
    for path, (name, value) in itertools.product(BODIES, HARMLESS.items()):
        status, body = await send(http, path, {name: value})
        assert status == 200, (path, name, body)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", sorted(FIELDS))
def test_the_table(path: str, name: str) -> None:
    """Every row, on every endpoint: null and neutral values pass, and another only where none can do harm."""
    job, schema = ENDPOINTS[path]
    body, neutral = BODIES[path], FIELDS[name]
    if name not in schema.model_fields:
        job({**body, name: None})
        for value in () if neutral is ... else neutral:
            job({**body, name: value})
        if neutral is ...:
            job({**body, name: {"any": "thing"}})
            return
        for value in ({"another": "thing"}, "another thing", -7.25, [[]]):
            with pytest.raises(RequestError) as raised:
                job({**body, name: value})
            assert raised.value.param == name
            assert raised.value.message.startswith(f"{name}: ")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", sorted({*CompletionRequest.model_fields, *ChatRequest.model_fields}))
def test_null_is_left_out(path: str, name: str) -> None:
    job, _ = ENDPOINTS[path]
    if name not in ("model", "prompt", "messages"):
        assert job({**BODIES[path], name: None}).prompts[0].chosen == job(BODIES[path]).prompts[0].chosen


def test_false_is_not_zero() -> None:
    """`logprobs: 0` asks for the chosen token's."""
    completion_job({**BODIES[TEXT], "logprobs": False, "top_logprobs": 0})
    for field in ({"logprobs": 0}, {"prompt_logprobs": 0}, {"best_of": True}):
        with pytest.raises(RequestError):
            completion_job({**BODIES[TEXT], **field})


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_new_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 5, "max_new_tokens": None}, {"max_tokens": 5}),
        ({"min_new_tokens": 3}, {"min_tokens": 3}),
        ({"sampling_seed": 7}, {"seed": 7}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"stop_token_ids": [3, 10**12, 2**63 - 1]}, {"stop_token_ids": [3]}),
    ],
)
async def test_other_names(
    http: aiohttp.ClientSession, ring: Ring, path: str, fields: dict[str, Any], sent: dict[str, Any]
) -> None:
    status, _ = await send(http, path, fields)
    params = ring.submits[0].work.params
    assert (status, {name: getattr(params, name) for name in sent}) == (200, sent)
    assert ring.submits[0].cut_to_fit == ("max_tokens" not in sent)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_new_tokens": 6}, "max_new_tokens"),
        ({"min_tokens": 0, "min_new_tokens": 1}, "min_new_tokens"),
        ({"seed": 1, "sampling_seed": 2}, "sampling_seed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"sampling_seed": 2**64}, "sampling_seed"),
        ({"max_new_tokens": 2, "min_new_tokens": 3}, "min_tokens"),
        ({"extra_key": ["a", "b"]}, "extra_key"),
        ({"extra_key": "k" * 257}, "extra_key"),
        ({"add_special_tokens": "yes"}, "add_special_tokens"),
    ],
)
async def test_names_that_contradict_each_other(
    http: aiohttp.ClientSession, path: str, fields: dict[str, Any], param: str
) -> None:
    status, body = await send(http, path, fields)
    assert (status, body["param"]) == (400, param)


SALTS = st.text(alphabet="\0:1a2", max_size=6)


@given(SALTS, SALTS, SALTS, SALTS)
def test_no_two_tenants_share_a_namespace(salt: str, key: str, other_salt: str, other_key: str) -> None:
    one = Sampling(cache_salt=salt, extra_key=key).cache_namespace
    other = Sampling(cache_salt=other_salt, extra_key=other_key).cache_namespace
    assert (one == other) == ((salt, key) == (other_salt, other_key))


async def test_extra_key_keeps_caches_apart(http: aiohttp.ClientSession, ring: Ring) -> None:
    pairs: list[dict[str, Any]] = [{}, {"cache_salt": "a"}, {"extra_key": "a"}, {"cache_salt": "a", "extra_key": "a"}]
    pairs += [{"cache_salt": "aa"}, {"extra_key": "aa"}]
    for path, fields in itertools.product(BODIES, pairs):
        await send(http, path, fields)
    salts = [submit.work.cache_salt for submit in ring.submits]
    assert salts[:6] == salts[6:]
    assert len(set(salts)) == 6
    assert salts[:2] == ["", "a"]


async def test_add_special_tokens_goes_to_the_tokenizer(http: aiohttp.ClientSession, ring: Ring) -> None:
    for path, fields in itertools.product(BODIES, ({}, {"add_special_tokens": True}, {"add_special_tokens": False})):
        await send(http, path, fields)
    assert [submit.add_special_tokens for submit in ring.submits] == [None, True, False] * 2


async def test_template_variables(http: aiohttp.ClientSession, ring: Ring) -> None:
    fields: dict[str, Any] = {
        "reasoning_effort": "high",
        "documents": [{"title": "t", "text": "x"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    await send(http, CHAT, {**fields, "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "high"}})
    assert ring.submits[0].chat_template_kwargs == {"enable_thinking": False, **fields}
    await send(http, CHAT, {})
    assert ring.submits[1].chat_template_kwargs == {}
    for name in fields:
        status, body = await send(http, CHAT, {**fields, "chat_template_kwargs": {name: "else"}})
        assert (status, body["param"]) == (400, name)


@pytest.mark.parametrize("name", ["prefix", "partial"])
async def test_a_message_that_is_to_be_gone_on_with(http: aiohttp.ClientSession, ring: Ring, name: str) -> None:
    """Other servers' way to say `continue_final_message`."""
    for value, status in ((True, 400), (False, 200)):
        messages = [{"role": "user", "content": "echo:1"}, {"role": "assistant", "content": "w", name: value}]
        told, body = await send(http, CHAT, {"messages": messages})
        assert told == status, body
        assert status == 200 or (body["param"], name in body["message"]) == ("messages.1", True)
    assert len(ring.submits) == 1


@pytest.mark.parametrize("include", [False, True])
async def test_usage_in_every_chunk(http: aiohttp.ClientSession, include: bool) -> None:
    options = {"continuous_usage_stats": True, "include_usage": include}
    body = {**BODIES[TEXT], "prompt": "echo:4", "stream": True, "stream_options": options}
    async with http.post(TEXT, json=body) as response:
        events = [
            json.loads(line[6:]) for line in (await response.text()).splitlines() if line and "[DONE]" not in line
        ]
    assert [event["usage"]["completion_tokens"] for event in events][-1] == 4
    assert len([event for event in events if not event["choices"]]) == include
    for usage in (event["usage"] for event in events):
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

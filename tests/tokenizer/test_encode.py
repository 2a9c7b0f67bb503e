"""Requests to ids: as transformers does it, and with clear words where it cannot be done."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from radixmesh.services.detokenizer import vocabulary
from radixmesh.services.tokenizer import encode
from radixmesh.services.tokenizer.chat.messages import plain_messages
from radixmesh.services.tokenizer.limits import Limits, check_token_params, from_config
from radixmesh.shared.errors import ErrorCode, ModelLoadError, RequestError
from radixmesh.shared.messages import Choice, Presence, SamplingParams, State, Submit, Task, Work
from tests.checkpoints import make_tokenizer
from tests.tokenizer.small_tokenizers import (
    TOOL_TEMPLATE,
    byte_level,
    save_chat_model,
    save_model,
    sentencepiece,
)

ROOMY = Limits(max_model_len=1000, vocab_size=401)


def submit(**fields: Any) -> Submit:
    defaults = {"request_id": "1" * 32, "gateway_id": "gw", "model": "m", "time_left": 1e12}
    return Submit.model_validate({**defaults, **fields})


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> encode.Encoder:
    return encode.load(save_chat_model(tmp_path_factory.mktemp("chat")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> encode.Encoder:
    """Adds a BOS token; has no chat template."""
    return encode.load(save_model(tmp_path_factory.mktemp("plain"), sentencepiece(), bos_token="<s>"))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> encode.Encoder:
    return encode.load(save_chat_model(tmp_path_factory.mktemp("tools"), TOOL_TEMPLATE))


def refused(encoder: encode.Encoder, request: Submit, limits: Limits = ROOMY) -> RequestError:
    with pytest.raises(RequestError) as caught:
        encoder.encode(request, limits)
    return caught.value


def text_of(encoder: encode.Encoder, **fields: Any) -> str:
    decoded: str = byte_level().decode(encoder.encode(submit(**fields), ROOMY).ids.tolist(), skip_special_tokens=False)
    return decoded


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[encode.Encoder, Any]]:
    """Each with what transformers makes of the same files."""
    plain, chat = (tmp_path_factory.mktemp(name) for name in ("plain", "chat"))
    models = save_model(plain, sentencepiece(), bos_token="<s>"), save_chat_model(chat)
    return [(encode.load(path), AutoTokenizer.from_pretrained(path)) for path in models]


@settings(max_examples=50)
@given(text=st.text(min_size=1, max_size=40))
def test_text_as_transformers_encodes_it(pairs: list[tuple[encode.Encoder, Any]], text: str) -> None:
    for encoder, tokenizer in pairs:
        assert encoder.encode(submit(text=text), ROOMY).ids.tolist() == tokenizer(text)["input_ids"]


def test_bos_is_the_tokenizers_own_business(plain: encode.Encoder, chat: encode.Encoder) -> None:
    assert plain.encode(submit(text="the fox"), ROOMY).ids[0] == 1
    assert plain.encode(submit(text=""), ROOMY).ids.tolist() == [1]
    assert chat.encode(submit(text="the"), ROOMY).ids.tolist() == byte_level().encode("the").ids
    assert refused(chat, submit(text="")).message == "the prompt is empty: it has no tokens"


def test_clients_may_say_whether_a_bos_is_added(tmp_path: Path) -> None:
    template = "{{ messages[0].content }}"
    encoder = encode.load(save_model(tmp_path, sentencepiece(), bos_token="<s>", chat_template=template))
    forms: list[dict[str, Any]] = [{"text": "the fox"}, {"messages": [{"role": "user", "content": "the fox"}]}]
    firsts = [
        [int(encoder.encode(submit(**form, add_special_tokens=wanted), ROOMY).ids[0]) for wanted in (None, True, False)]
        for form in forms
    ]
    bos, word = 1, encoder.encode(submit(text="the fox"), ROOMY).ids[1]
    assert firsts == [[bos, bos, word], [word, bos, word]]
    assert encoder.encode(submit(token_ids=[5], add_special_tokens=True), ROOMY).ids.tolist() == [5]


def test_fields_that_only_some_templates_know(tmp_path: Path, chat: encode.Encoder) -> None:
    messages = [{"role": "user", "content": "hi"}]
    template = "{{ reasoning_effort }}:{% for d in documents or [] %}{{ d.text }}{% endfor %}:{{ messages[0].content }}"
    knowing = encode.load(save_chat_model(tmp_path, template))
    given: dict[str, Any] = {"reasoning_effort": "high", "documents": [{"text": "the fox"}]}
    assert text_of(knowing, messages=messages, chat_template_kwargs=given) == "high:the fox:hi"
    for name, value in given.items():
        error = refused(chat, submit(messages=messages, chat_template_kwargs={name: value}))
        assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, name)
        assert name in error.message
    assert text_of(chat, messages=messages, chat_template_kwargs={"documents": [], "reasoning_effort": None})


def test_truncation_in_the_file_is_ignored(tmp_path: Path) -> None:
    save_model(tmp_path, byte_level(), model_max_length=4)
    fields = json.loads((tmp_path / "tokenizer.json").read_text())
    fields["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    fields["padding"] = {
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    ids = encode.load(tmp_path).encode(submit(text="the quick brown fox jumps"), ROOMY).ids
    assert ids.tolist() == byte_level().encode("the quick brown fox jumps").ids


def test_chat_as_transformers_renders_it(chat: encode.Encoder, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": "Ça va? 🙂"}]
    tokenizer = AutoTokenizer.from_pretrained(save_chat_model(tmp_path))
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert chat.encode(submit(messages=messages), ROOMY).ids.tolist() == wanted


def test_chat_template_kwargs(chat: encode.Encoder) -> None:
    messages = [{"role": "user", "content": "hi"}]
    opening = "<|im_start|>user\nhi<|im_end|>\n"
    assert text_of(chat, messages=messages, chat_template_kwargs={"mood": "glad"}) == (
        f"{opening}<|im_start|>assistant\n[glad]"
    )
    assert text_of(chat, messages=messages, chat_template_kwargs={"add_generation_prompt": False}) == opening
    going_on = [*messages, {"role": "assistant", "content": "Well, I"}]
    assert text_of(chat, messages=going_on, chat_template_kwargs={"continue_final_message": True}) == (
        f"{opening}<|im_start|>assistant\nWell, I"
    )
    both = {"continue_final_message": True, "add_generation_prompt": True}
    assert "exclude" in refused(chat, submit(messages=going_on, chat_template_kwargs=both)).message


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "tools", "messages", "return_dict", "conversation"])
def test_reserved_template_kwargs(chat: encode.Encoder, name: str) -> None:
    error = refused(chat, submit(messages=[{"role": "user", "content": "x"}], chat_template_kwargs={name: "y"}))
    assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, "chat_template_kwargs")
    assert name in error.message


def test_content_parts_and_tool_arguments_become_plain() -> None:
    parts = [{"type": "text", "text": "a"}, {"text": "b"}, "c"]
    assert plain_messages([{"role": "user", "content": parts}]) == [{"role": "user", "content": "a\nb\nc"}]
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    (message,) = plain_messages([{"role": "assistant", "content": None, "tool_calls": [call, "odd"]}])
    assert message["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}, "odd"]
    assert call["function"]["arguments"] == '{"x": 1}'  # type: ignore[index]
    old = {"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    assert plain_messages([old]) == [
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
        }
    ]
    result = {"role": "function", "name": "f", "content": "42"}
    assert plain_messages([result]) == [{"role": "tool", "name": "f", "content": "42"}]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "text", "text": 3}]}, "messages.0.content.0"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "[1]"}}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
    ],
)
def test_messages_that_cannot_be_plain(chat: encode.Encoder, message: dict[str, Any], param: str) -> None:
    error = refused(chat, submit(messages=[message]))
    assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, param)


ASKING = (
    "{% for m in messages %}{{ m.role }}"
    "{% for field in ('content', 'name', 'tool_calls', 'reasoning_content') %}"
    "{% if m[field] is defined %} {{ field }}{% endif %}{% endfor %};{% endfor %}"
)
"""Tells which fields its messages have."""


@pytest.mark.parametrize(
    ("message", "there"),
    [
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, " tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": None, "name": None}, ""),
        ({"role": "user", "content": "", "name": "bob"}, " content name"),
        ({"role": "assistant", "content": "x", "reasoning_content": ""}, " content reasoning_content"),
        ({"role": "tool"}, ""),
    ],
)
def test_a_template_sees_the_fields_that_a_message_has(tmp_path: Path, message: dict[str, Any], there: str) -> None:
    """Neither what the client left out nor what it gave as null; `transformers` says the same."""
    directory = save_chat_model(tmp_path, ASKING)
    assert text_of(encode.load(directory), messages=[message]) == f"{message['role']}{there};"
    told = AutoTokenizer.from_pretrained(directory).apply_chat_template([message], tokenize=False)
    assert told == f"{message['role']}{there};"


@pytest.mark.parametrize("calls", [[], None])
def test_a_list_without_calls_is_no_calls(tmp_path: Path, calls: list[Any] | None) -> None:
    """Some servers answer so, and clients send an answer back as it came."""
    encoder = encode.load(save_chat_model(tmp_path, ASKING))
    answer = {"role": "assistant", "content": "x", "tool_calls": calls}
    assert text_of(encoder, messages=[answer]) == "assistant content;"
    old = {"role": "assistant", "tool_calls": calls, "function_call": {"name": "f", "arguments": "{}"}}
    assert text_of(encoder, messages=[old]) == "assistant tool_calls;"


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ '<|im_start|>' + m['content'] }}{% endfor %}",
        "{% for m in messages %}<|im_start|>{{ m.content | trim + '' }}{% endfor %}",
        "{% for m in messages %}<|im_start|>{{ m.content.strip() }}{% endfor %}",
    ],
)
def test_a_template_that_does_not_ask_gets_empty_content(tmp_path: Path, template: str) -> None:
    """Messages without content are usual beside tool calls, and many templates concatenate."""
    call = {"function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    encoder = encode.load(save_chat_model(tmp_path, template))
    assert text_of(encoder, messages=messages) == "<|im_start|>hi<|im_start|>"
    assert text_of(encoder, messages=[messages[0], {"role": "assistant"}]) == "<|im_start|>hi<|im_start|>"


def test_tools(tools: encode.Encoder, chat: encode.Encoder) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": [call]}]
    assert text_of(tools, messages=messages, tools=[tool]) == "weather;<|im_start|>x<|im_start|>yBern"
    error = refused(chat, submit(messages=messages[:1], tools=[tool]))
    assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, "tools")
    assert chat.encode(submit(messages=messages[:1], tools=[]), ROOMY).ids.size


def test_template_errors_are_told(chat: encode.Encoder, plain: encode.Encoder, tmp_path: Path) -> None:
    error = refused(chat, submit(messages=[{"role": "villain", "content": "x"}]))
    assert error.code is ErrorCode.INVALID_REQUEST
    assert "no villains here" in error.message
    assert "no chat template" in refused(plain, submit(messages=[{"role": "user", "content": "x"}])).message
    assert "empty" in refused(chat, submit(messages=[])).message
    crashing = encode.load(save_chat_model(tmp_path, "{{ messages[0].content + 3 }}"))
    assert "TypeError" in refused(crashing, submit(messages=[{"role": "user", "content": "x"}])).message
    escaping = encode.load(save_chat_model(tmp_path, "{{ ''.__class__.__mro__ }}{{ messages.append(1) }}"))
    assert "refuses" in refused(escaping, submit(messages=[{"role": "user", "content": "x"}])).message


def test_token_ids_pass_through(chat: encode.Encoder) -> None:
    assert chat.encode(submit(token_ids=[5, 400, 0]), ROOMY).ids.tolist() == [5, 400, 0]
    for ids, wrong in (([5, 401], "401"), ([-1, 3], "-1")):
        error = refused(chat, submit(token_ids=ids))
        assert (error.code, error.param) == (ErrorCode.INVALID_REQUEST, "prompt")
        assert wrong in error.message
        assert "0 to 400" in error.message
    assert "empty" in refused(chat, submit(token_ids=[])).message
    assert "-2" in refused(chat, submit(token_ids=[-2]), Limits()).message
    assert chat.encode(submit(token_ids=[10**6]), Limits()).ids.tolist() == [10**6]


def test_encoded_text_must_fit_the_models_vocabulary(chat: encode.Encoder) -> None:
    error = refused(chat, submit(text="<|im_end|><tool call｜>"), Limits(vocab_size=400))
    assert "token id 400" in error.message


def test_lone_surrogates(chat: encode.Encoder) -> None:
    for fields in ({"text": "ab\ud800"}, {"messages": [{"role": "user", "content": "ab\udfff"}]}):
        error = refused(chat, submit(**fields))
        assert error.code is ErrorCode.INVALID_REQUEST
        assert "surrogate" in error.message


@pytest.mark.parametrize("fields", [{}, {"text": "a", "token_ids": [1]}, {"text": "a", "messages": []}])
def test_exactly_one_prompt(chat: encode.Encoder, fields: dict[str, Any]) -> None:
    assert "exactly one" in refused(chat, submit(**fields)).message


IDS = list(range(10, 20))


def most(tokens: int, task: Task = Task.GENERATE) -> Work:
    return Work(task=task, params=SamplingParams(max_tokens=tokens))


@pytest.mark.parametrize(
    ("limit", "fields", "words"),
    [
        (11, {}, None),
        (10, {}, ["10 tokens", "output included"]),
        (10, {"work": Work(task=Task.EMBED)}, None),
        (9, {"work": Work(task=Task.EMBED)}, ["10 tokens", "9 tokens"]),
        (20, {"work": most(10)}, None),
        (19, {"work": most(10)}, ["10 tokens", "max_tokens asks for 10", "20", "19"]),
        (19, {"work": most(10, Task.EMBED)}, None),
        (11, {"work": most(10), "cut_to_fit": True}, None),
        (10, {"work": most(10), "cut_to_fit": True}, ["10 tokens", "output included"]),
        (15, {"choices": [Choice(index=0), Choice(index=1, resumed=[1, 2, 3, 4])]}, None),
        (14, {"choices": [Choice(index=0), Choice(index=1, resumed=[1, 2, 3, 4])]}, ["10 tokens", "4 were generated"]),
        (20, {"choices": [Choice(index=0, resumed=[1] * 9)], "work": most(10)}, None),
        (20, {"choices": [Choice(index=0, resumed=[1] * 10)], "work": most(10)}, None),
        (0, {"work": most(10**6)}, None),
    ],
)
def test_lengths(chat: encode.Encoder, limit: int, fields: dict[str, Any], words: list[str] | None) -> None:
    request = submit(token_ids=IDS, **fields)
    if words is None:
        assert chat.encode(request, Limits(limit, 401)).ids.tolist() == IDS
    else:
        error = refused(chat, request, Limits(limit, 401))
        assert error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
        assert [word for word in words if word not in error.message] == []
        output = "max_tokens asks" in error.message
        assert error.param == ("max_tokens" if output else "prompt")
        known = "max_completion_tokens is too large" if output else "is longer than the model's context length"
        assert known in error.message


def test_hopeless_text_is_not_tokenized(chat: encode.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object) -> None:
        raise AssertionError("was tokenized")

    monkeypatch.setattr(chat, "_ids", never)
    for fields in ({"text": "x" * 20_000}, {"messages": [{"role": "user", "content": "x" * 20_000}]}):
        error = refused(chat, submit(**fields), Limits(100, 401))
        assert error.code is ErrorCode.CONTEXT_LENGTH_EXCEEDED
        assert "100 tokens" in error.message


def test_encoding_lets_other_threads_run(chat: encode.Encoder) -> None:
    """It must not hold the GIL: while it works in a thread, this one counts."""
    text, done = "the quick brown fox " * 60_000, threading.Event()

    def work() -> None:
        chat.encode(submit(text=text), Limits())
        done.set()

    worker, ticks = threading.Thread(target=work), 0
    worker.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    worker.join()
    assert ticks > 10


def test_limits(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"text_config": {"max_position_embeddings": 7, "vocab_size": 9}, "vocab_size": 1}))
    found = from_config(tmp_path)
    assert found == Limits(7, 9)
    replicas = [
        Presence(service="scheduler", instance=str(n), epoch=1, state=State.READY, attributes=attributes)
        for n, attributes in enumerate(({"max_model_len": 50}, {"max_model_len": 40, "vocab_size": 0}, {}))
    ]
    assert found.narrowed(replicas) == Limits(40, 9)
    assert found.narrowed([]) == found
    path.write_text(json.dumps({"n_positions": "many"}))
    assert from_config(tmp_path) == Limits(0, 0)
    path.write_text(json.dumps({"max_position_embeddings": 1e30, "vocab_size": 9.0}), encoding="utf-8-sig")
    assert from_config(tmp_path) == Limits(2**31 - 1, 9)
    for broken in ("[]", "{"):
        path.write_text(broken)
        with pytest.raises(ModelLoadError, match=r"config\.json"):
            from_config(tmp_path)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, byte_level())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=str(tmp_path)):
        encode.load(tmp_path)


def test_sizes(chat: encode.Encoder, plain: encode.Encoder) -> None:
    assert (chat.vocab_size, chat.has_chat_template, plain.has_chat_template) == (401, True, False)
    assert np.dtype(np.int32) == chat.encode(submit(text="x"), ROOMY).ids.dtype


def test_a_tokenizer_process_does_without_torch_and_transformers(tmp_path: Path) -> None:
    """Importing them would cost seconds and memory; tokens are the same without."""
    model = save_chat_model(tmp_path)
    program = (
        "import sys; from pathlib import Path; from radixmesh.services.tokenizer import __main__, encode;"
        "from radixmesh.shared.model_files.tokenizer import lean;"
        "lean.without_torch(); encoder = encode.load(Path(sys.argv[1]));"
        "print(sys.modules['torch'], 'transformers' in sys.modules, encoder._ids('the quick', True))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"None False {byte_level().encode('the quick').ids}", done.stderr
    assert done.stderr == ""


def test_a_directory_without_tokenizer_is_no_model(tmp_path: Path) -> None:
    """transformers makes an empty tokenizer of the config's family; serving that would blame the clients."""
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ModelLoadError, match=str(tmp_path)):
        encode.load(tmp_path)
    with pytest.raises(ModelLoadError, match=str(tmp_path)):
        vocabulary.load(tmp_path)


def test_a_broken_chat_template_is_found_at_load(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": "{% for m in messages %}{{ m['content' }}{% endfor %}"}))
    with pytest.raises(ModelLoadError, match="chat template does not parse"):
        encode.load(tmp_path)


def test_a_bias_on_unknown_tokens_is_refused() -> None:
    with pytest.raises(RequestError, match="names token 999999, outside the model's vocabulary"):
        check_token_params(SamplingParams(logit_bias={999_999: 1.0}), Limits(max_model_len=10, vocab_size=512))


def test_unknown_tokens_may_be_stopped_at() -> None:
    check_token_params(SamplingParams(stop_token_ids=[7, 999_999]), Limits(max_model_len=10, vocab_size=512))

"""Model directories as people have them, through the whole ring: what one file leaves unsaid another one tells."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests import scripted_checkpoint, sentencepiece_model
from tests.serving import ServeProcess, wait_for
from tests.tokenizer.small_tokenizers import CHAT_TEMPLATE, save_model, sentencepiece

FLAGS = ("--dtype", "float32", "--max-model-len", "256")
NAMES = {"bos_token": "<s>", "unk_token": "<unk>", "chat_template": CHAT_TEMPLATE}
NEWLINE = 3 + 10
"""The byte with which a chat's generation prompt ends, in either tokenizer."""
THE, FOX, QUICK, TEXT = (sentencepiece().token_to_id(word) for word in ("▁the", "▁fox", "▁quick", "▁text"))
CALL, IM_END = 320, 330


def client(mesh: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0)


def complete(mesh: ServeProcess, prompt: str | list[int], max_tokens: int) -> tuple[str, str, int]:
    """Text, why it ended, and how many tokens the prompt had."""
    with client(mesh) as api:
        answer = api.completions.create(model=mesh.model, prompt=prompt, max_tokens=max_tokens, temperature=0)
    assert answer.usage is not None
    return answer.choices[0].text, answer.choices[0].finish_reason, answer.usage.prompt_tokens


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """Llama's kind of tokenizer under Qwen2's architecture, whose turn end and call token are in no tokenizer.json."""
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    tokens = {
        CALL: {**plain, "content": "<|call|>", "special": False},
        IM_END: {**plain, "content": "<|im_end|>", "special": True},
    }
    files = tmp_path_factory.mktemp("files")
    save_model(files, sentencepiece(), added_tokens_decoder=tokens, eos_token="<|im_end|>", **NAMES)
    path = scripted_checkpoint.write(
        tmp_path_factory.mktemp("models") / "mixed",
        files,
        352,
        chains=[[NEWLINE, FOX, IM_END, THE], [THE, CALL, QUICK, TEXT, THE]],
        arch="Qwen2ForCausalLM",
        config={"eos_token_id": 2},
        generation_config={"eos_token_id": [2, TEXT, 4000]},
    )
    with ServeProcess("--model", str(path), *FLAGS) as mesh:
        yield mesh


def test_an_answer_ends_where_the_tokenizer_says(mixed: ServeProcess) -> None:
    with client(mixed) as api:
        answer = api.chat.completions.create(
            model=mixed.model, messages=[{"role": "user", "content": "the fox?"}], max_tokens=20, temperature=0
        )
    (choice,) = answer.choices
    assert ((choice.message.content or "").strip(), choice.finish_reason) == ("fox", "stop")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2


def test_a_declared_token_is_text_and_an_ordinary_end_is_not(mixed: ServeProcess) -> None:
    assert complete(mixed, [1, THE], 20)[:2] == ("<|call|> quick", "stop")


def test_the_prompt_is_split_as_the_file_says(mixed: ServeProcess) -> None:
    assert complete(mixed, "the quick fox", 1)[2] == len(sentencepiece().encode("the quick fox").ids)


def test_everyone_spells_alike(mixed: ServeProcess) -> None:
    with client(mixed) as api:
        members: Any = api.get("/mesh", cast_to=object)
    told = {member["service"]: member["attributes"].get("vocabulary") for member in members["data"]}
    assert told["tokenizer"] == told["detokenizer"] != ""
    worker = next(iter(mixed.pids("model_worker")))
    words = "generation_config.json: eos_token_id: 4000 is left out"
    wait_for(lambda: words in mixed.log(worker), 10, "the worker's warning")


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    files = tmp_path / "files"
    reference = sentencepiece_model.train(files, normalization_rule_name="identity", remove_extra_whitespaces=False)
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "eos_token": "</s>", **NAMES}
    (files / "tokenizer_config.json").write_text(json.dumps(config))
    prompt = "  Once upon a\n"
    said = list(dict.fromkeys(reference.encode("naïve: words, 漢 all of them")))
    path = scripted_checkpoint.write(tmp_path / "alone", files, 340, chains=[[NEWLINE, *said, 2]])
    with ServeProcess("--model", str(path), *FLAGS) as mesh:
        text, finish, prompt_tokens = complete(mesh, prompt, 64)
    assert prompt_tokens == 1 + len(reference.encode(prompt))
    assert (text, finish) == (reference.decode([*reference.encode(prompt), *said]).removeprefix(prompt), "stop")

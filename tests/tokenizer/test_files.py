"""Tokenizers from their files: without `transformers` where that gives the same, with it everywhere else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizer.small_tokenizers import byte_level, metaspace, save_chat_model, save_model, sentencepiece, wordpiece
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from radixmesh.services.tokenizer import files

TEXTS = [
    "",
    "the quick  brown fox",
    " Ünïcödé <|im_start|>x<|im_end|>\n\n it's 1234 <tool call｜>a",
    "e\u0301 \U0001f642",
]


def qwen2(split: str = files._QWEN2_SPLIT) -> Tokenizer:
    """`byte_level` in Qwen2's clothes."""
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def model(path: Path, tokenizer: Tokenizer, family: str = "llama", **config: Any) -> Path:
    save_model(path, tokenizer, **config)
    fields = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**fields, "model_type": family}))
    return path


def write(path: Path, name: str, content: object) -> Path:
    (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


ADDED = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
ADDED |= {"special": True}
Make = Callable[[Path], Path]

ALONE: dict[str, Make] = {
    "plain": lambda path: model(path, byte_level(), bos_token="<|endoftext|>"),
    "bos": lambda path: model(path, sentencepiece(), bos_token="<s>", eos_token="</s>", add_bos_token=False),
    "chat": lambda path: save_chat_model(path),
    "wordpiece": lambda path: model(path, wordpiece(), "qwen3", tokenizer_class="TokenizersBackend"),
    "metaspace": lambda path: model(path, metaspace(), unk_token={"content": "<unk>", "__type": "AddedToken"}),
    "llama3": lambda path: model(path, byte_level(), tokenizer_class="LlamaTokenizerFast"),
    "listed": lambda path: model(path, byte_level(), added_tokens_decoder={"2": ADDED}, eos_token="<|im_end|>"),
    "qwen2": lambda path: model(path, qwen2(), "qwen2", tokenizer_class="Qwen2Tokenizer", bos_token=None),
    "qwen3": lambda path: model(path, qwen2(), "qwen3", tokenizer_class="Qwen2TokenizerFast", add_bos_token=False),
    "qwen2 by family": lambda path: model(path, qwen2(), "qwen2"),
    "older files": lambda path: write(save_chat_model(path), "special_tokens_map.json", {"bos_token": "<|im_start|>"}),
    "template alone": lambda path: write(save_chat_model(path), "chat_template.jinja", "{{ messages[0].content }}!"),
}
WITH_HELP: dict[str, Make] = {
    "its class knows more": lambda path: model(path, sentencepiece(), tokenizer_class="LlamaTokenizerFast"),
    "not Qwen2's split": lambda path: model(path, qwen2(r"\s+"), "qwen2", tokenizer_class="Qwen2Tokenizer"),
    "not Qwen2's normal form": lambda path: model(path, byte_level(), "qwen3", tokenizer_class="Qwen2Tokenizer"),
    "a token more": lambda path: model(path, byte_level(), eos_token="<eos>"),
    "an extra token more": lambda path: model(path, byte_level(), additional_special_tokens=["the"]),
    "other flags": lambda path: model(path, byte_level(), added_tokens_decoder={"2": {**ADDED, "lstrip": True}}),
    "older files with a token": lambda path: write(save_chat_model(path), "added_tokens.json", {"<more>": 401}),
    "another family": lambda path: model(path, byte_level(), "gpt2"),
    "several templates": lambda path: model(
        path, byte_level(), chat_template=[{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    ),
    "no configuration": lambda path: (
        (model(path, byte_level()) / "tokenizer_config.json").unlink() or path  # type: ignore[func-returns-value]
    ),
}


@pytest.mark.parametrize("name", [*ALONE, *WITH_HELP])
def test_as_transformers_loads_it(tmp_path: Path, name: str) -> None:
    (ALONE.get(name) or WITH_HELP[name])(tmp_path)
    assert (files._read_or_none(tmp_path) is not None) == (name in ALONE)
    found, wanted = files.read(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    for text in TEXTS:
        for special in (True, False):
            assert found.tokenizer.encode(text, add_special_tokens=special).ids == wanted.encode(
                text, add_special_tokens=special
            )
    assert found.tokenizer.get_vocab() == wanted.get_vocab()
    assert found.special_tokens == wanted.special_tokens_map
    assert found.chat_template == wanted.chat_template


@pytest.mark.parametrize("content", ["{", "[]", '{"tokenizer_class": 3}', "{}"])
def test_odd_files_are_left_to_transformers(tmp_path: Path, content: str) -> None:
    write(save_chat_model(tmp_path), "tokenizer_config.json", content)
    assert files._read_or_none(tmp_path) is None

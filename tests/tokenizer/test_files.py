"""Tokenizers from their files: a tokenizer.json as it stands, all else with the help of `transformers`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from radixmesh.services.detokenizer import vocabulary
from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer import fields, reader
from radixmesh.shared.model_files.tokenizer.conversion import PythonTokenizer
from radixmesh.shared.model_files.tokenizer.folder import Folder
from tests.tokenizer.small_tokenizers import (
    byte_level,
    metaspace,
    save_chat_model,
    save_model,
    sentencepiece,
    wordpiece,
)

TEXTS = [
    "",
    "the quick  brown fox",
    " Ünïcödé <|im_start|>x<|im_end|>\n\n it's 1234 <tool call｜>a",
    "e\u0301 \U0001f642",
]
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen2(split: str = QWEN2_SPLIT) -> Tokenizer:
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
    sizes = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**sizes, "model_type": family}))
    return path


def write(path: Path, name: str, content: object) -> Path:
    file = path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def without(path: Path, name: str) -> Path:
    (path / name).unlink()
    return path


ADDED = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
ADDED |= {"special": True}
LISTED = {"0": {**ADDED, "content": "<|endoftext|>"}, "1": {**ADDED, "content": "<|im_start|>"}, "2": ADDED}
LISTED["400"] = {**ADDED, "content": "<tool call｜>", "special": False, "normalized": True}
Make = Callable[[Path], Path]

ALIKE: dict[str, Make] = {
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
    "older files with a token": lambda path: write(save_chat_model(path), "added_tokens.json", {"<more>": 401}),
    "template alone": lambda path: write(save_chat_model(path), "chat_template.jinja", "{{ messages[0].content }}!"),
    "templates alone": lambda path: write(save_chat_model(path), "additional_chat_templates/rag.jinja", "{{ rag }}!"),
    "several templates": lambda path: model(
        path, byte_level(), chat_template=[{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    ),
    "a token more": lambda path: model(path, byte_level(), eos_token="<eos>"),
    "many tokens more, in no order": lambda path: model(
        path,
        byte_level(),
        pad_token="<pad>",
        image_token="<image>",
        additional_special_tokens=["<z>", {**ADDED, "content": "<a>", "__type": "AddedToken"}],
        eos_token="<eos>",
        added_tokens_decoder={**LISTED, "401": {**ADDED, "content": "<listed>"}},
        bos_token="<|im_end|>",
    ),
    "extra tokens by name": lambda path: model(path, byte_level(), extra_special_tokens={"boi_token": "<image>"}),
    "tokens of the model's own": lambda path: model(
        path, byte_level(), model_specific_special_tokens={"image_token": "<image>"}
    ),
    "older extra tokens that do not count": lambda path: write(
        model(path, byte_level(), added_tokens_decoder=LISTED),
        "special_tokens_map.json",
        {"additional_special_tokens": ["<old>"]},
    ),
    "older extra tokens that do": lambda path: write(
        model(path, byte_level()),
        "special_tokens_map.json",
        {"additional_special_tokens": ["<old>"], "sep_token": {**ADDED, "content": "<sep>"}},
    ),
    "older extra tokens beside newer ones": lambda path: write(
        model(path, byte_level(), additional_special_tokens=["<new>"]),
        "special_tokens_map.json",
        {"additional_special_tokens": ["<old>"]},
    ),
    "an extra token more": lambda path: model(path, byte_level(), additional_special_tokens=["the"]),
    "a listed token more": lambda path: model(
        path, byte_level(), added_tokens_decoder={**LISTED, "401": {**ADDED, "content": "quick", "special": False}}
    ),
    "other flags": lambda path: model(path, byte_level(), added_tokens_decoder={"2": {**ADDED, "lstrip": True}}),
    "special tokens as text": lambda path: model(path, byte_level(), split_special_tokens=True),
    "a space before": lambda path: model(
        path, qwen2(), "qwen3", tokenizer_class="Qwen2Tokenizer", add_prefix_space=True
    ),
    "not a class that heeds it": lambda path: model(path, byte_level(), add_prefix_space=True),
    "no space before": lambda path: model(
        path, metaspace(), tokenizer_class="LlamaTokenizer", add_prefix_space=False, bos_token="<s>"
    ),
    "another family": lambda path: model(path, byte_level(), "gpt2"),
    "a family nobody knows": lambda path: model(path, byte_level(), "novel"),
}
"""Directories of which `transformers` makes the same, though most of them it takes apart and builds anew."""

AS_IT_STANDS: dict[str, Make] = {
    "Qwen2's by family alone": lambda path: model(path, sentencepiece(), "qwen2", bos_token="<s>", eos_token="</s>"),
    "not Qwen2's split": lambda path: model(path, qwen2(r"\s+"), "qwen2", tokenizer_class="Qwen2Tokenizer"),
    "not Qwen2's normal form": lambda path: model(path, byte_level(), "qwen3", tokenizer_class="Qwen2Tokenizer"),
    "not Llama's way with leading spaces": lambda path: model(
        path, sentencepiece(), tokenizer_class="LlamaTokenizerFast", bos_token="<s>"
    ),
    "a class for bytes": lambda path: model(path, sentencepiece(), "gpt2", tokenizer_class="GPT2Tokenizer"),
}
"""Directories of which `transformers` makes something else than the file says, for the class's sake."""


@pytest.mark.parametrize("name", ALIKE)
def test_as_transformers_loads_it(tmp_path: Path, name: str) -> None:
    ALIKE[name](tmp_path)
    found, wanted = reader.read(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    for text in TEXTS:
        for special in (True, False):
            assert found.tokenizer.encode(text, add_special_tokens=special).ids == wanted.encode(
                text, add_special_tokens=special
            )
    assert found.tokenizer.get_vocab() == wanted.get_vocab()
    assert found.special_tokens == wanted.special_tokens_map
    assert found.chat_template == wanted.chat_template
    assert found.special_ids >= {id for id, token in wanted.added_tokens_decoder.items() if token.special}


@pytest.mark.parametrize("name", AS_IT_STANDS)
def test_the_file_is_believed_whatever_the_class(tmp_path: Path, name: str) -> None:
    AS_IT_STANDS[name](tmp_path)
    found, file = reader.read(tmp_path).tokenizer, Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert isinstance(found, Tokenizer)
    wanted = [file.encode(text).ids for text in (*TEXTS, " the")]
    assert [found.encode(text).ids for text in (*TEXTS, " the")] == wanted
    assert found.get_vocab() == file.get_vocab()
    by_class = AutoTokenizer.from_pretrained(tmp_path)
    assert [by_class.encode(text) for text in (*TEXTS, " the")] != wanted


@pytest.mark.parametrize(("add_bos", "add_eos"), [(True, None), (False, True), (None, True), (False, None)])
def test_ends_are_added_as_the_configuration_says_where_its_class_heeds_it(
    tmp_path: Path, add_bos: bool | None, add_eos: bool | None
) -> None:
    """Such configurations stand beside files that add nothing, or the opposite."""
    for name, tokenizer in (("bos", sentencepiece()), ("nothing", metaspace())):
        if name == "nothing":
            tokenizer.post_processor = None
        given = {"add_bos_token": add_bos, "add_eos_token": add_eos}
        path = model(tmp_path / name, tokenizer, tokenizer_class="LlamaTokenizer", **given)
        bare = tokenizer.encode("the fox", add_special_tokens=False).ids
        before = [1] if (name == "bos" if add_bos is None else add_bos) else []
        assert ids(path, "the fox") == [*before, *bare, *([2] if add_eos else [])]
        generic = model(tmp_path / f"{name}-generic", tokenizer, bos_token="<s>", eos_token="</s>", **given)
        assert ids(generic, "the fox") == tokenizer.encode("the fox").ids


def ids(path: Path, text: str, special: bool = True) -> list[int]:
    tokenizer = reader.read(path).tokenizer
    assert isinstance(tokenizer, Tokenizer)
    return list(tokenizer.encode(text, add_special_tokens=special).ids)


@pytest.mark.parametrize(
    ("tokenizer", "prefix", "same_as"),
    [
        (sentencepiece(), False, "the fox"),
        (sentencepiece(), True, "▁the fox"),
        (qwen2(), True, " the fox"),
        (metaspace(), False, "the fox"),
    ],
)
def test_a_space_before_the_text_comes_and_goes_in_encoder_and_decoder(
    tmp_path: Path, tokenizer: Tokenizer, prefix: bool, same_as: str
) -> None:
    path = model(tmp_path, tokenizer, "qwen2", add_prefix_space=prefix)
    found = reader.read(path).tokenizer
    assert isinstance(found, Tokenizer)
    encoded = found.encode("the fox", add_special_tokens=False)
    assert encoded.tokens[0].startswith(("▁", "Ġ")) == prefix
    assert found.decode(encoded.ids).strip() == "the fox"


def test_a_field_that_nobody_knows_counts_if_it_changes_the_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = wordpiece()
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    lower = model(tmp_path / "lower", words, "bert", tokenizer_class="BertTokenizer")
    cased = model(tmp_path / "cased", words, "bert", tokenizer_class="BertTokenizer", do_lower_case=False)
    novel = model(tmp_path / "novel", words, "bert", tokenizer_class="BertTokenizer", favourite_colour="blue")
    known = ids(lower, "the Quick fox", special=False)
    assert ids(novel, "the Quick fox", special=False) == known
    assert not caplog.records
    by_class = AutoTokenizer.from_pretrained(cased)
    wanted = by_class.encode("the Quick fox", add_special_tokens=False)
    assert ids(cased, "the Quick fox", special=False) == wanted != known
    assert "do_lower_case" in caplog.text
    listed = {"40": {**ADDED, "content": "<|call|>"}}
    more = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "added_tokens_decoder": listed}
    assert ids(model(tmp_path / "more", words, "bert", **more), "the Quick<|call|>", special=False) == [1, 0, 40]


def test_usual_fields_are_known_and_others_are_not(tmp_path: Path) -> None:
    """Those of the models that people serve: a field that is not known costs an import of transformers."""
    usual = {
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "image_token"), "<s>"),
        **dict.fromkeys(("clean_up_tokenization_spaces", "legacy", "use_default_system_prompt", "use_fast"), True),
        **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"), False),
        **{"model_max_length": 10**30, "padding_side": "left", "errors": "replace", "vocab_size": 49152},
        **{"sp_model_kwargs": {}, "model_input_names": [], "additional_special_tokens": [], "auto_map": {}},
    }
    odd = {"do_lower_case": True, "add_cls_token": True, "add_special_tokens": False, "fix_mistral_regex": True}
    path = save_model(tmp_path, byte_level(), **usual)
    assert fields.unknown(Folder(path)) == []
    assert fields.unknown(Folder(save_model(path, byte_level(), **usual, **odd))) == sorted(odd)


def test_a_field_that_nobody_knows_does_not_bring_the_class_along(tmp_path: Path) -> None:
    path = AS_IT_STANDS["Qwen2's by family alone"](tmp_path)
    write(path, "tokenizer_config.json", {**json.loads((path / "tokenizer_config.json").read_text()), "odd": [1]})
    assert ids(path, "the fox") == sentencepiece().encode("the fox").ids


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    save_chat_model(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    found = reader.read(tmp_path)
    assert found.special_tokens["eos_token"] == "<|im_end|>"
    assert ids(tmp_path, "the fox") == byte_level().encode("the fox").ids


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"added_tokens_decoder": {"x": ADDED}},
        {"added_tokens_decoder": {"3": "<a>"}},
        {"added_tokens_decoder": {"-3": ADDED}},
        {"added_tokens_decoder": {str(2**40): ADDED}},
        {"added_tokens_decoder": [ADDED]},
        {"chat_template": 7},
    ],
    ids=str,
)
def test_malformed_configurations_are_named(tmp_path: Path, content: object) -> None:
    write(save_chat_model(tmp_path), "tokenizer_config.json", content)
    with pytest.raises(ModelLoadError, match=r"tokenizer_config\.json"):
        reader.read(tmp_path)


def test_odd_values_of_names_count_as_none(tmp_path: Path) -> None:
    write(save_chat_model(tmp_path), "tokenizer_config.json", {"eos_token": 3, "pad_token": "", "tokenizer_class": 3})
    assert reader.read(tmp_path).special_tokens == {}


def test_a_tokenizer_in_python_serves_both_sides(tmp_path: Path) -> None:
    """ByT5's has no files: its tokens are bytes."""
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer", "eos_token": "</s>"})
    write(tmp_path, "config.json", {"model_type": "t5"})
    found = reader.read(tmp_path)
    assert isinstance(found.tokenizer, PythonTokenizer)
    encoded = found.tokenizer.ids("naïve", special=False)
    assert len(encoded) == 6
    loaded = vocabulary.load(tmp_path)
    decoder = loaded.decoder([], True)
    assert "".join(decoder.feed([token]) for token in [*encoded, 1]) + decoder.finish() == "naïve"
    assert loaded.fingerprint == found.fingerprint

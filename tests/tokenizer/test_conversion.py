"""Directories without a tokenizer.json: sentencepiece models as sentencepiece reads them, and errors by name."""

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from radixmesh.services.detokenizer import vocabulary
from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer import conversion, reader, sentencepiece_file
from radixmesh.shared.model_files.tokenizer.end_tokens import end_token_ids
from tests import sentencepiece_model
from tests.tokenizer.small_tokenizers import byte_level

TEXTS = [
    "Once upon a time",
    " the fox",
    "  two  spaces ",
    "\n\nnaïve: 漢字 \U0001f642",
    "",
    "tab\there",
    "ａｂｃ ﬁ e\u0301",
]
MODELS: dict[str, dict[str, Any]] = {
    "as Llama's": {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "split_digits": True},
    "normalized": {"normalization_rule_name": "nmt_nfkc"},
    "without a leading space": {"normalization_rule_name": "identity", "add_dummy_prefix": False},
    "unigram": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": False},
    "with words of its own": {"user_defined_symbols": ["<|im_end|>"], "remove_extra_whitespaces": False},
}
CONFIGS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "Llama's class": {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False},
    "the generic class": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "add_bos_token": True},
    "Llama's class by default": {"tokenizer_class": "LlamaTokenizerFast"},
}


def folder(path: Path, config: dict[str, Any] | None, family: str = "llama") -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": family}))
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("name", MODELS)
def test_a_sentencepiece_model_alone(tmp_path: Path, name: str, family: str) -> None:
    """The same whatever class is named, or goes with the model's family; with BOS where Llama's have it."""
    for label, config in CONFIGS.items():
        path = tmp_path / label
        reference = sentencepiece_model.train(path, **MODELS[name])
        folder(path, config, family)
        found, loaded = reader.read(path), vocabulary.load(path)
        assert isinstance(found.tokenizer, Tokenizer)
        starts_with_bos = config is not None or family == "llama"
        for text in TEXTS:
            ids = reference.encode(text)
            assert found.tokenizer.encode(text, add_special_tokens=False).ids == ids
            assert found.tokenizer.encode(text).ids == [1] * starts_with_bos + ids
            decoder = loaded.decoder([1] * starts_with_bos, True)
            assert "".join(decoder.feed([token]) for token in [*ids, 2]) + decoder.finish() == reference.decode(ids)
        assert found.special_ids >= {1, 2}
        assert found.fingerprint == loaded.fingerprint


def test_vocabulary_and_merges_alone(tmp_path: Path) -> None:
    folder(tmp_path, {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>"}, "gpt2")
    model = json.loads(byte_level().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(merge) for merge in model["merges"]))
    found, loaded = reader.read(tmp_path), vocabulary.load(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    ids = found.tokenizer.encode("the quick  été").ids
    assert ids == byte_level().encode("the quick  été").ids
    assert loaded.decode(ids, True) == "the quick  été"
    assert loaded.fingerprint == found.fingerprint


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"<html>not found</html>", b"version https://git-lfs"])
def test_what_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer"})
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.model is no sentencepiece model"):
        reader.read(tmp_path)


def test_a_model_cut_short_is_named(tmp_path: Path) -> None:
    sentencepiece_model.train(tmp_path)
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer"})
    path = tmp_path / "tokenizer.model"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelLoadError, match=r"tokenizer\.model is no sentencepiece model"):
        reader.read(tmp_path)


@pytest.mark.parametrize("package", ["sentencepiece", "protobuf", "tiktoken"])
def test_the_package_that_is_missing_is_the_one_that_is_named(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer"})
    if package != "tiktoken":
        sentencepiece_model.train(tmp_path)
    else:
        lines = [base64.b64encode(bytes([byte])) + f" {byte}\n".encode() for byte in range(256)]
        (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    find = importlib.util.find_spec
    monkeypatch.setattr(conversion, "find_spec", lambda name: None if name.endswith(package) else find(name))
    with pytest.raises(ModelLoadError, match=rf"takes the package {package} to read"):
        reader.read(tmp_path)


def test_pieces_are_read_without_the_library(tmp_path: Path) -> None:
    reference = sentencepiece_model.train(tmp_path)
    found = sentencepiece_file.pieces(tmp_path / "tokenizer.model")
    assert found == [reference.id_to_piece(number) for number in range(len(reference))]
    assert sentencepiece_file.pieces(tmp_path / "nothing") == []


@pytest.mark.parametrize("prefix", [True, False])
def test_a_space_before_the_text_comes_and_goes_by_the_configuration(tmp_path: Path, prefix: bool) -> None:
    sentencepiece_model.train(tmp_path, add_dummy_prefix=not prefix, remove_extra_whitespaces=False)
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": prefix})
    found, loaded = reader.read(tmp_path), vocabulary.load(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    for text in ("Once upon a time", " the fox"):
        encoded = found.tokenizer.encode(text, add_special_tokens=False)
        assert encoded.tokens[0].startswith("▁") == (prefix or text.startswith(" "))
        decoder = loaded.decoder([1], True)
        assert "".join(decoder.feed([token]) for token in encoded.ids) + decoder.finish() == text


def test_configurations_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    reference = sentencepiece_model.train(tmp_path)
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"})
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    found = reader.read(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    assert found.tokenizer.encode("the fox").ids == [1, *reference.encode("the fox")]


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_declared_tokens_keep_their_ids_behind_a_sentencepiece_model(tmp_path: Path, model_type: str) -> None:
    gap = 60 if model_type == "bpe" else 0  # a list of pieces has no place for ids beyond a gap
    reference = sentencepiece_model.train(tmp_path, model_type=model_type)
    tokens = {str(340 + gap): {"content": "<|call|>"}, str(341 + gap): {"content": "<|im_end|>", "special": True}}
    folder(tmp_path, {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": tokens, "eos_token": "<|im_end|>"})
    found, loaded = reader.read(tmp_path), vocabulary.load(tmp_path)
    assert isinstance(found.tokenizer, Tokenizer)
    ids = found.tokenizer.encode("the fox<|call|><|im_end|>").ids
    assert ids == [1, *reference.encode("the fox"), 340 + gap, 341 + gap]
    assert loaded.decode(ids, True).endswith("the fox<|call|>")
    assert end_token_ids(tmp_path, 512) == (341 + gap,)

"""Tokens that another file than tokenizer.json declares: the same for who encodes and who decodes."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from radixmesh.services.detokenizer import vocabulary
from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer import reader
from tests.tokenizer.small_tokenizers import byte_level, save_model, sentencepiece

SIZE = sentencepiece().get_vocab_size()
CALL: dict[str, Any] = {"content": "<|call|>", "normalized": False, "special": False}


def declared(path: Path, name: str, number: int, token: dict[str, Any]) -> Path:
    """A model whose file `name` alone declares `token`."""
    if name == "tokenizer_config.json":
        return save_model(path, sentencepiece(), added_tokens_decoder={str(number): token})
    save_model(path, sentencepiece())
    (path / "added_tokens.json").write_text(json.dumps({token["content"]: number}))
    if name == "special_tokens_map.json":
        (path / name).write_text(json.dumps({"additional_special_tokens": [token["content"]]}))
    return path


@pytest.mark.parametrize("number", [SIZE, SIZE + 7, SIZE + 500])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "added_tokens.json"])
def test_a_token_keeps_its_id_and_is_shown(tmp_path: Path, name: str, number: int) -> None:
    path = declared(tmp_path, name, number, CALL)
    found, loaded = reader.read(path), vocabulary.load(path)
    assert isinstance(found.tokenizer, Tokenizer)
    ids = found.tokenizer.encode("the<|call|>fox", add_special_tokens=False).ids
    assert ids.count(number) == 1
    assert loaded.decode(ids, True).replace(" ", "") == "the<|call|>fox"
    decoder = loaded.decoder([1], True)
    text = "".join(decoder.feed([token]) for token in ids) + decoder.finish()
    assert text == loaded.decode(ids, True)
    assert not loaded.is_special(number)
    assert found.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_one_that_is_called_special_is_hidden(tmp_path: Path, name: str) -> None:
    path = declared(tmp_path, name, SIZE, {**CALL, "special": True})
    loaded = vocabulary.load(path)
    assert loaded.is_special(SIZE)
    assert loaded.decode([260, SIZE], True) == loaded.decode([260], True)
    assert loaded.decode([260, SIZE], False).endswith("<|call|>")


def test_many_tokens_with_gaps_between_them(tmp_path: Path) -> None:
    numbers = {SIZE + 3 * n: f"<|extra {n}|>" for n in range(40)}
    listed = {str(number): {**CALL, "content": content} for number, content in numbers.items()}
    path = save_model(tmp_path, sentencepiece(), added_tokens_decoder=listed, eos_token="<|extra 7|>")
    found = reader.read(path)
    assert {number: found.tokenizer.id_to_token(number) for number in numbers} == numbers
    assert found.vocab_size == max(numbers) + 1
    assert SIZE + 21 in found.special_ids


@pytest.mark.parametrize(
    ("number", "content", "words"),
    [(5, "<|call|>", "id 5 is declared as"), (SIZE + 1, "</s>", "is declared with id .* but has id 2")],
)
def test_the_tokenizers_own_file_is_believed_and_the_other_one_named(
    tmp_path: Path, number: int, content: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = reader.read(declared(tmp_path, "tokenizer_config.json", number, {**CALL, "content": content}))
    assert found.tokenizer.get_vocab() == sentencepiece().get_vocab()
    assert re.search(words, caplog.text)


def test_a_gap_that_a_list_of_pieces_cannot_have_is_refused(tmp_path: Path) -> None:
    pieces = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁fox", -2.0)], 0, byte_fallback=False))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    path = save_model(tmp_path / "next", pieces, added_tokens_decoder={"3": CALL})
    assert reader.read(path).tokenizer.id_to_token(3) == "<|call|>"
    path = save_model(tmp_path / "gap", pieces, added_tokens_decoder={"9": CALL})
    with pytest.raises(ModelLoadError, match=r"leave a gap behind the vocabulary: <\|call\|>"):
        reader.read(path)


def test_fingerprints_tell_spelling_ids_decoder_and_what_is_hidden(tmp_path: Path) -> None:
    def fingerprint(name: str, **config: Any) -> str:
        return reader.read(save_model(tmp_path / name, byte_level(), **config)).fingerprint

    plain = fingerprint("plain")
    assert fingerprint("again", model_max_length=5) == plain
    other = [
        fingerprint("more", added_tokens_decoder={"401": CALL}),
        fingerprint("elsewhere", added_tokens_decoder={"402": CALL}),
        fingerprint("otherwise", added_tokens_decoder={"401": {**CALL, "content": "<|cell|>"}}),
        fingerprint("hidden", added_tokens_decoder={"401": {**CALL, "special": True}}),
    ]
    assert len({plain, *other}) == 5
    config = {"tokenizer_class": "LlamaTokenizer"}
    spaced = {
        reader.read(save_model(tmp_path / f"{prefix}", sentencepiece(), add_prefix_space=prefix, **config)).fingerprint
        for prefix in (True, False)
    }
    assert len(spaced) == 2

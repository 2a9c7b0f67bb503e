"""Vocabularies from model directories, good and broken."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from radixmesh.services.detokenizer import vocabulary
from radixmesh.shared.errors import ModelLoadError
from tests.tokenizer.small_tokenizers import byte_level, save_model, sentencepiece


def test_special_tokens_come_from_all_files(tmp_path: Path) -> None:
    save_model(
        tmp_path,
        byte_level(),
        pad_token={"content": "the", "special": True},
        additional_special_tokens=["Ġ"],
        added_tokens_decoder={"400": {"content": "<tool call｜>", "special": False}},
    )
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"unk_token": "Ġthe"}))
    loaded, tokenizer = vocabulary.load(tmp_path), byte_level()
    wanted = {tokenizer.token_to_id(token) for token in ("Ġ", "Ġthe")}
    assert tokenizer.token_to_id("the") is None
    assert loaded.special == {0, 1, 2, 401} | wanted


def test_sentencepiece_directory(tmp_path: Path) -> None:
    loaded = vocabulary.load(save_model(tmp_path, sentencepiece(), bos_token="<s>"))
    assert loaded.special == {0, 1, 2}
    assert loaded.rule is not None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_malformed_files_are_named(tmp_path: Path, name: str) -> None:
    save_model(tmp_path, byte_level())
    (tmp_path / name).write_text("{")
    with pytest.raises(ModelLoadError, match=name):
        vocabulary.load(tmp_path)


def test_no_tokenizer_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"no tokenizer\.json"):
        vocabulary.load(tmp_path)


def test_a_detokenizer_process_does_without_torch_and_transformers(tmp_path: Path) -> None:
    """Also where a tokenizer.json stands beside tokens that other files declare; torch is kept out at any rate."""
    save_model(tmp_path, byte_level(), added_tokens_decoder={"401": {"content": "<call>"}}, eos_token="<|im_end|>")
    program = (
        "import sys; from pathlib import Path; from radixmesh.services.detokenizer import __main__, vocabulary;"
        "from radixmesh.shared.model_files.tokenizer import lean;"
        "lean.without_torch(); loaded = vocabulary.load(Path(sys.argv[1]));"
        "print(sys.modules['torch'], 'transformers' in sys.modules, loaded.decode([401], True))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("None False <call>", "")

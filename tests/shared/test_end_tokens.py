"""Which tokens end an answer: every place that may name them, and none that the model cannot say."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer.end_tokens import end_token_ids
from tests import sentencepiece_model

VOCAB = 100
WORDS = {"<s>": 1, "</s>": 2, "the": 3, "<|im_start|>": 20, "<|im_end|>": 21, "<|eot_id|>": 22, "7": 23}
SPECIAL = [word for word in WORDS if word.startswith("<")]


def added(content: str, **fields: Any) -> dict[str, Any]:
    return {"content": content, "special": True, **fields}


def tokenizer_json(*, listed: list[str] = SPECIAL, vocab: object = WORDS) -> dict[str, Any]:
    tokens = [added(word, id=WORDS[word]) for word in listed]
    return {"version": "1.0", "truncation": None, "added_tokens": tokens, "model": {"type": "BPE", "vocab": vocab}}


def ends(path: Path, **files: object) -> tuple[int, ...]:
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return end_token_ids(path, VOCAB)


PLACES: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "config": ({"config": {"eos_token_id": 2}}, (2,)),
    "generation config": ({"generation_config": {"eos_token_id": [2, 21]}}, (2, 21)),
    "both, equal": ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": 2}}, (2,)),
    "both, different": ({"config": {"eos_token_id": 2}, "generation_config": {"eos_token_id": 22}}, (2, 22)),
    "an ordinary default": ({"config": {"eos_token_id": 3}, "generation_config": {"eos_token_id": 22}}, (22,)),
    "nested": ({"config": {"text_config": {"eos_token_id": 21}}}, (21,)),
    "tokenizer": ({"tokenizer_config": {"eos_token": "<|im_end|>"}}, (21,)),
    "described": ({"tokenizer_config": {"eos_token": added("<|im_end|>", __type="AddedToken")}}, (21,)),
    "older file": ({"special_tokens_map": {"eos_token": added("<|eot_id|>")}}, (22,)),
    "two files": (
        {
            "tokenizer_config": {"eos_token": "</s>", "added_tokens_decoder": {"2": added("</s>")}},
            "special_tokens_map": {"eos_token": "<|im_end|>"},
        },
        (2, 21),
    ),
    "an ordinary word": ({"tokenizer_config": {"eos_token": "the"}}, (3,)),
    "all three": (
        {
            "config": {"eos_token_id": 1},
            "generation_config": {"eos_token_id": [1, 2]},
            "tokenizer_config": {"eos_token": "<|im_end|>"},
        },
        (1, 2, 21),
    ),
    "spelled in a config": ({"generation_config": {"eos_token_id": ["<|im_end|>", 2.0]}}, (2, 21)),
    "an id in a string": ({"config": {"eos_token_id": "2"}, "generation_config": {"eos_token_id": ["21"]}}, (2, 21)),
    "an end that is spelled in digits": ({"tokenizer_config": {"eos_token": "7"}}, (23,)),
    "a class's own": ({"tokenizer_config": {"tokenizer_class": "LlamaTokenizerFast"}}, (2,)),
    "a class's own, taken back": ({"tokenizer_config": {"tokenizer_class": "LlamaTokenizer", "eos_token": None}}, ()),
    "a class's own that is not there": ({"tokenizer_config": {"tokenizer_class": "Qwen2Tokenizer"}}, ()),
    "the template's": ({"tokenizer_config": {"chat_template": "{{ m.content }}<|im_end|>"}}, (21,)),
    "one of two templates'": (
        {"tokenizer_config": {"chat_template": [{"name": "default", "template": "x<|eot_id|>"}]}},
        (22,),
    ),
    "the template's, which is not called special": (
        {
            "tokenizer_config": {"chat_template": "{{ m.content }}<|end_of_turn|><end_of_turn>"},
            "added_tokens": {"<|end_of_turn|>": 30},
        },
        (30,),
    ),
    "a template's beginning": ({"tokenizer_config": {"chat_template": "<|im_start|>{{ m.content }}"}}, ()),
    "nowhere": ({}, ()),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_place_counts(tmp_path: Path, name: str) -> None:
    files, wanted = PLACES[name]
    assert ends(tmp_path, tokenizer=tokenizer_json(), **files) == wanted


FORMS: dict[str, dict[str, object]] = {
    "only in the vocabulary": {"tokenizer": tokenizer_json(listed=[])},
    "in a list of pieces": {
        "tokenizer": tokenizer_json(listed=[], vocab=[*([f"w{n}", -1.0] for n in range(21)), ["<|im_end|>", 0.0]])
    },
    "only in the configuration": {"tokenizer_config": {"added_tokens_decoder": {"21": added("<|im_end|>")}}},
    "only in the older file": {"tokenizer": tokenizer_json(listed=[], vocab={}), "added_tokens": {"<|im_end|>": 21}},
    "vocabulary alone": {"vocab": WORDS},
    "tokens behind the model": {"tokenizer": {"model": {"vocab": {}}, "added_tokens": [added("<|im_end|>", id=21)]}},
}


@pytest.mark.parametrize("name", FORMS)
def test_a_spelling_has_its_id_in_any_form_of_tokenizer(tmp_path: Path, name: str) -> None:
    assert ends(tmp_path, special_tokens_map={"eos_token": "<|im_end|>"}, **FORMS[name]) == (21,)


DISAGREEMENTS: dict[str, dict[str, object]] = {
    "another id than in the vocabulary": {"added_tokens_decoder": {"3": added("</s>")}, "eos_token": "</s>"},
    "the id of another word": {"added_tokens_decoder": {"3": added("<end>")}, "eos_token": "<end>"},
    "the id of another word, in the template": {
        "added_tokens_decoder": {"3": added("<|end_of_turn|>")},
        "chat_template": "{{ m.content }}<|end_of_turn|>",
    },
    "the id of an ordinary default": {"added_tokens_decoder": {"3": added("<end>")}},
}


@pytest.mark.parametrize("listed", [[], ["</s>"]], ids=["in the vocabulary", "listed"])
@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_no_ordinary_word_ends_an_answer_because_its_id_is_declared_for_another(
    tmp_path: Path, name: str, listed: list[str]
) -> None:
    config, recommended = {"eos_token_id": 3}, {"eos_token_id": 2}
    files = {"tokenizer": tokenizer_json(listed=listed), "tokenizer_config": DISAGREEMENTS[name]}
    assert ends(tmp_path, config=config, generation_config=recommended, **files) == (2,)


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    sentencepiece_model.train(tmp_path)
    assert ends(tmp_path, tokenizer_config={"eos_token": "</s>"}) == (2,)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config": {"eos_token_id": 100}}, r"/config\.json: eos_token_id: 100 is left out: .* \(0 to 99\)"),
        ({"generation_config": {"eos_token_id": [2, -1]}}, r"/generation_config\.json: eos_token_id: -1 is left out"),
        ({"generation_config": {"eos_token_id": [2, [7]]}}, r"_config\.json: eos_token_id: \[7\] is left out"),
        ({"config": {"eos_token_id": True}}, r"/config\.json: eos_token_id: True is left out"),
        ({"config": {"eos_token_id": ["<eos>", 2]}}, r"/config\.json: eos_token_id: '<eos>' is left out"),
        ({"tokenizer_config": {"eos_token": "<eos>"}}, r"tokenizer_config\.json: eos_token: '<eos>' is left out"),
        (
            {"tokenizer_config": {"added_tokens_decoder": {"500": added("<x>")}, "eos_token": "<x>"}},
            r"tokenizer_config\.json: eos_token: '<x>' is left out",
        ),
    ],
)
def test_what_the_model_cannot_say_is_left_out_and_said(
    tmp_path: Path, files: dict[str, object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert set(ends(tmp_path, tokenizer=tokenizer_json(), **files)) <= {2}
    (record,) = caplog.records
    assert re.search(words, record.getMessage())


def test_an_end_that_does_not_exist_outweighs_none(tmp_path: Path) -> None:
    assert ends(tmp_path, config={"eos_token_id": 3}, generation_config={"eos_token_id": 4000}) == (3,)


def test_malformed_files_are_named(tmp_path: Path) -> None:
    for name in ("config", "generation_config", "tokenizer_config", "special_tokens_map"):
        (tmp_path / f"{name}.json").write_text("{")
        with pytest.raises(ModelLoadError, match=rf"{name}\.json"):
            end_token_ids(tmp_path, VOCAB)
        (tmp_path / f"{name}.json").unlink()

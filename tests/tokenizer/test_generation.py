"""What generation_config.json recommends."""

import json
from pathlib import Path

import pytest

from radixmesh.services.tokenizer.generation import BOUNDS, sampling_defaults
from radixmesh.shared.errors import ModelLoadError


def write(path: Path, config: object) -> Path:
    (path / "generation_config.json").write_text(json.dumps(config))
    return path


def test_recommendations_are_read_and_others_left(tmp_path: Path) -> None:
    config = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True, "eos_token_id": [1, 2], "min_p": None}
    assert sampling_defaults(write(tmp_path, config)) == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}


def test_a_model_may_come_without(tmp_path: Path) -> None:
    assert sampling_defaults(tmp_path) == {}


@pytest.mark.parametrize(
    ("wish", "honoured"),
    [
        ({"top_k": -5}, {"top_k": 0}),
        ({"top_k": 10**9}, {"top_k": 1_000_000}),
        ({"top_k": 20.5}, {"top_k": 20}),
        ({"top_p": -0.1}, {"top_p": 1e-6}),
        ({"top_p": 7}, {"top_p": 1.0}),
        ({"temperature": 2.5}, {"temperature": 2.0}),
        ({"temperature": -1}, {"temperature": 0.0}),
        ({"repetition_penalty": "1.2"}, {"repetition_penalty": 1.2}),
        ({"repetition_penalty": -0.5}, {"repetition_penalty": 1e-6}),
        ({"min_p": "much"}, {}),
        ({"top_p": [0.9]}, {}),
        ({"temperature": True}, {}),
        ({"temperature": float("nan")}, {}),
        ({"temperature": float("inf")}, {}),
        ({"top_k": 10**400}, {}),
        ({"max_new_tokens": 0}, {}),
        ({"bos_token_id": 99999, "eos_token_id": -1}, {}),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_met_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wish: dict[str, object], honoured: dict[str, float]
) -> None:
    found = sampling_defaults(write(tmp_path, {"min_p": 0.05, **wish}))
    assert found == {**({} if "min_p" in wish else {"min_p": 0.05}), **honoured}
    assert all(type(value) is (int if name == "top_k" else float) for name, value in found.items())
    told = [name for name, value in wish.items() if name in BOUNDS and value != "1.2"]
    assert len(caplog.messages) == len(told)
    assert all(f"generation_config.json: {name} is " in text for name, text in zip(told, caplog.messages, strict=True))


def test_values_at_which_a_filter_is_off_or_sure(tmp_path: Path) -> None:
    assert sampling_defaults(write(tmp_path, {"top_k": -1, "top_p": 0.0})) == {"top_p": 1e-6}


def test_any_editor_may_have_written_it(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_k": 20}', encoding="utf-8-sig")
    assert sampling_defaults(tmp_path) == {"top_k": 20}


@pytest.mark.parametrize(("text", "complaint"), [("[1]", "must hold a JSON object"), ("{", "is not JSON")])
def test_nonsense_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=rf"generation_config\.json: {complaint}"):
        sampling_defaults(tmp_path)

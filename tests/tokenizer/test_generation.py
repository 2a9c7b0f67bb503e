"""What generation_config.json recommends."""

import json
from pathlib import Path

import pytest

from radixmesh.services.tokenizer.generation import sampling_defaults
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
    ("config", "complaint"),
    [([1], "no JSON object"), ({"top_k": "x"}, "top_k must be a number from 0 to"), ({"top_p": 7}, "top_p")],
)
def test_nonsense_is_named(tmp_path: Path, config: object, complaint: str) -> None:
    with pytest.raises(ModelLoadError, match=complaint):
        sampling_defaults(write(tmp_path, config))

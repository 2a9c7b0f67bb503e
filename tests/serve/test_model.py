"""Which model is served, and under which name."""

from pathlib import Path

import pytest

from radixmesh.cli.serve.planning.model import choose
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.model_files.model_source import BUNDLED, bundled_model


def test_without_a_model_the_bundled_one_is_served() -> None:
    chosen = choose(None, None)
    assert chosen.name == BUNDLED == "radixmesh-tiny"
    assert Path(chosen.path) == bundled_model().resolve()
    assert (bundled_model() / "config.json").is_file()
    assert choose(None, "mine").name == "mine"
    assert choose(chosen.path, None).name == BUNDLED


@pytest.mark.parametrize("model", [".", "./", "../mine", "../mine/.", "../other/../mine/", "{}/", "link/../mine"])
def test_a_model_is_served_under_its_directorys_real_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for name in ("mine", "mine/link", "mine/mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "mine")
    chosen = choose(model.format(tmp_path / "mine"), None)
    assert chosen.name == "mine"
    assert Path(chosen.path).is_absolute()


def test_a_model_whose_directory_has_no_name_to_be_asked_for_by_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a\nb"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"--model: its name 'a\\nb' .* give it one by --served-model-name"):
        choose(str(directory), None)
    assert choose(str(directory), "ab").name == "ab"

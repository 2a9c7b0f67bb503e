"""From what a user names to a model directory."""

import errno
import os
import tempfile
from pathlib import Path

import huggingface_hub
import pytest

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.host import homes
from radixmesh.shared.model_files.model_source import resolve


def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for model in (tmp_path / "circle", f"/{'x' * 300}", "~nobody-of-this-name/model"):
        with pytest.raises(ModelLoadError, match=str(model)):
            resolve(str(model))


@pytest.mark.parametrize("home", ["/home/me", None])
def test_a_model_of_the_hub_is_kept_among_temporary_files_where_the_home_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    tried: list[Path | None] = []

    def download(model: str, *, allow_patterns: list[str], cache_dir: Path | None) -> str:
        tried.append(cache_dir)
        if cache_dir is None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/home/me/.cache")
        return str(cache_dir / model)

    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(homes, "cache_home", lambda: Path(home) if home else None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("owner/name") == tmp_path / f"radixmesh-{os.geteuid()}" / "huggingface" / "owner" / "name"
    assert tried[:-1] == ([None] if home else [])


def test_what_the_hub_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(model: str, **_: object) -> str:
        raise OSError(f"there is no {model}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelLoadError, match="the hub does not give it: there is no owner/name"):
        resolve("owner/name")


def test_a_path_that_is_no_model_is_named(tmp_path: object) -> None:
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(ModelLoadError, match="neither a directory nor"):
        resolve("/nowhere/at-all")

"""From what a user names to a model directory on this machine."""

import errno
import os
import stat
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.host import homes

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Files of a hub repository that are fetched: configuration, weights and tokenizer, never code or pickles."""

BUNDLED = "radixmesh-tiny"
"""The model that comes with the package, and the name it is served under."""


def bundled_model() -> Path:
    """The directory of the model inside the package."""
    return Path(str(files("radixmesh"))) / "models" / BUNDLED


def resolve(model: str, *, weights: bool = True) -> Path:
    """The local directory of `model`, a path or a Hugging Face hub id such as ``Qwen/Qwen3-0.6B``.

    Args:
        weights: also fetch the weights of a hub model.

    Raises:
        ModelLoadError: there is no such directory, it cannot be read, or the hub does not give it.
    """
    path = Path(os.path.expanduser(model))
    try:
        if _is_directory(path):
            (path / "config.json").stat()
            return path.resolve()
    except FileNotFoundError:
        raise ModelLoadError(f"{path} has no config.json: it is not a Hugging Face model directory") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise ModelLoadError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelLoadError(f"{model} is neither a directory nor a Hugging Face hub id (owner/name)")
    return _download(model, WANTED if weights else tuple(p for p in WANTED if p != "*.safetensors"))


def _is_directory(path: Path) -> bool:
    """Raises OSError if that cannot be told."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _download(model: str, patterns: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelLoadError(f"{model} is no directory, and huggingface-hub is not installed") from error
    try:
        for cache in _hub_caches():
            try:
                return Path(snapshot_download(model, allow_patterns=list(patterns), cache_dir=cache))
            except OSError as error:  # the hub's client's own errors have no number
                problem = error
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    break
        raise problem
    except Exception as error:  # the hub's client raises many unrelated types
        raise ModelLoadError(f"{model} is no directory, and the hub does not give it: {error}") from error


def _hub_caches() -> Iterator[Path | None]:
    """Where a model may be kept; None is the hub client's own choice, which is a directory below the home."""
    if homes.cache_home() is not None or os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE"):
        yield None
    yield homes.temporary() / "huggingface"


def default_name(model: str) -> str:
    """The name under which `model` is served if none is configured: its directory's name, or the hub id's last part."""
    path = os.path.expanduser(model)
    # Only a directory has another name than the one it is called by (".", "..").
    return os.path.basename(os.path.abspath(path) if os.path.isdir(path) else path.rstrip("/"))

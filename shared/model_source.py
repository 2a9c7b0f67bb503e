"""From what a user names to a model directory on this machine."""

from pathlib import Path

from radixmesh.shared.errors import ModelLoadError

WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Files of a hub repository that are fetched: configuration, weights and tokenizer, never code or pickles."""


def resolve(model: str, *, weights: bool = True) -> Path:
    """The local directory of `model`, a path or a Hugging Face hub id such as ``Qwen/Qwen3-0.6B``.

    Args:
        weights: also fetch the weights of a hub model.

    Raises:
        ModelLoadError: there is no such directory, or the hub does not give it.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelLoadError(f"{path} has no config.json: it is not a Hugging Face model directory")
        return path.resolve()
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ModelLoadError(f"{model} is neither a directory nor a Hugging Face hub id (owner/name)")
    return _download(model, WANTED if weights else tuple(p for p in WANTED if p != "*.safetensors"))


def _download(model: str, patterns: tuple[str, ...]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelLoadError(f"{model} is no directory, and huggingface-hub is not installed") from error
    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns)))
    except Exception as error:  # the hub's client raises many unrelated types
        raise ModelLoadError(f"{model} is no directory, and the hub does not give it: {error}") from error


def default_name(model: str) -> str:
    """The name under which `model` is served if none is configured: its last path component."""
    return Path(model).name or model

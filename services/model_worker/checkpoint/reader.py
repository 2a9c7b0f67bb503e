"""The safetensors files of a model directory: which tensors they hold, and of what shape.

The files are believed, the index is only a hint: what a shard holds counts whether the index lists it or not, and a
whole `model.safetensors` is taken whatever an index beside it says (as transformers does). Pickled checkpoints (`.bin`,
`.pt`) are refused: loading one runs code.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.shared import errors
from radixmesh.shared.model_files.json_file import read_object

log = logging.getLogger(__name__)

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_COMPARED_ROWS = 4096


class Checkpoint:
    """Stored tensors by name. Their files stay mapped as long as this or a tensor lives."""

    def __init__(self, source: Path, files: Mapping[Path, Any], where: Mapping[str, Path]) -> None:
        """
        source: the file that says which tensors there are.
        files: open safetensors files.
        where: the file of every tensor.
        """
        self.source = source
        self._files = files
        self._stored = {name: (name, file) for name, file in where.items()}

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """The files in the directory `path`. Raises `ModelLoadError`, naming the one that is missing or broken."""
        single, index = path / SINGLE_NAME, path / INDEX_NAME
        if single.is_file() and SINGLE_NAME not in _named_by(index):
            if index.exists():
                log.warning("%s is whole: %s beside it is not read", single, INDEX_NAME)
            files = {single: _open(single)}
            return cls(single, files, dict.fromkeys(files[single].keys(), single))
        if index.exists():
            return cls(index, *_shards(index))
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
        hint = f"; pickled weights ({pickled[0]}) are not loaded, convert them to safetensors" if pickled else ""
        raise ModelLoadError(path, "", f"has neither {SINGLE_NAME} nor {INDEX_NAME}{hint}")

    @property
    def names(self) -> Iterable[str]:
        return self._stored.keys()

    def file(self, name: str) -> Path:
        """Where the tensor `name` is stored."""
        return self._stored[name][1]

    def view(self, name: str) -> Any:
        """The tensor `name` to be sliced: a slice is in the file's map until it is written to."""
        stored, file = self._stored[name]
        return self._files[file].get_slice(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.view(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Raises `ModelLoadError` if it is none that a model can be served in."""
        kind = self.view(name).get_dtype()
        if kind not in _DTYPES:
            raise ModelLoadError(self.file(name), name, f"is stored as {kind}; say by --dtype what to serve it in")
        return _DTYPES[kind]

    def rename(self, name: str, to: str) -> None:
        """What is stored as `name` is now known as `to`, in place of any other."""
        self._stored[to] = self._stored.pop(name)

    def equal(self, first: str, second: str) -> bool:
        """Whether two matrices hold the same numbers."""
        if self.shape(first) != self.shape(second):
            return False
        ours, theirs = self.view(first), self.view(second)
        return all(
            _same(ours[row : row + _COMPARED_ROWS], theirs[row : row + _COMPARED_ROWS])
            for row in range(0, self.shape(first)[0], _COMPARED_ROWS)
        )


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first, second) if first.dtype == second.dtype else torch.equal(first.float(), second.float())


def _named_by(index: Path) -> set[str]:
    """The files that an index names; none if there is no index, or it is unreadable."""
    try:
        return set(_weight_map(index).values())
    except errors.ModelLoadError:
        return set()


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ModelLoadError(index, "weight_map", "must map tensor names to file names")
    return weight_map


def _shards(index: Path) -> tuple[dict[Path, Any], dict[str, Path]]:
    """The open files that an index names, and the file of every tensor in them."""
    weight_map = _weight_map(index)
    for name in sorted(set(weight_map.values())):
        # A name, not a path: an index must not lead out of its directory.
        if Path(name).name != name:
            raise ModelLoadError(index, "weight_map", f"{name!r} is not a plain file name")
        if not index.with_name(name).is_file():
            raise ModelLoadError(index.with_name(name), "", f"is missing, but {INDEX_NAME} names it")
    files = {index.with_name(name): _open(index.with_name(name)) for name in sorted(set(weight_map.values()))}
    held = {file: set(tensors.keys()) for file, tensors in files.items()}
    where = {tensor: file for file, tensors in held.items() for tensor in tensors}
    for tensor, name in weight_map.items():
        where[tensor] = index.with_name(name)
        if tensor not in held[where[tensor]]:
            raise ModelLoadError(where[tensor], tensor, f"is not in this file, though {INDEX_NAME} says so")
    return files, where


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(file, "", f"is not a whole safetensors file ({error})") from error

"""From safetensors files to a model's parameters.

A file is mapped into memory, and each rank copies only its own slices from the map to the parameters,
casting on the way: no tensor exists twice, and pages the rank does not need are never read. Pickled
checkpoints (`.bin`, `.pt`) are refused: loading one runs code.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from radixmesh.services.model_worker.deferred import Deferred
from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.fields import read_json
from radixmesh.services.model_worker.layers.weight_slice import WeightSlice, weight_slices

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

# Called with (bytes done, bytes in all) of this rank's parameters after each tensor.
Progress = Callable[[int, int], None]

# Tables that old checkpoints stored and that are computed now.
_HARMLESS = re.compile(r"\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attn\.(bias|masked_bias))$")


def load_weights(
    model: nn.Module,
    path: Path,
    progress: Progress | None = None,
    tied: bool = False,
    deferred: Deferred | None = None,
) -> None:
    """Fill every parameter of `model` from the directory `path`; what `deferred` puts off is left to it.

    `tied`: a stored `lm_head.weight` is a copy of the embedding, and skipped. Raises `ModelLoadError`
    naming file and tensor when something is missing, unexpected, misshapen or cut short.
    """
    wanted = weight_slices(model)
    where = _locate(path)
    _check_names(path, wanted, where, tied)
    report = _Reporter(wanted, progress)
    by_file: dict[Path, list[WeightSlice]] = defaultdict(list)
    for item in wanted:
        by_file[where[item.name]].append(item)
    for file, items in by_file.items():
        with _open(file) as tensors:
            present = set(tensors.keys())
            for item in items:
                if item.name not in present:
                    problem = f"is not in this file, though {INDEX_NAME} says so"
                    raise ModelLoadError(file, item.name, problem)
                source = _source(file, tensors, item)
                if deferred is None or not deferred.put_off(item, source):
                    item.target.copy_(source)
                report.done(item)


def random_weights(model: nn.Module, progress: Progress | None = None) -> None:
    """Fill `model` with numbers that depend on the tensors' names only, without a checkpoint.

    Norms are 1, biases 0, matrices uniform with standard deviation 0.02. Ranks hold slices of the same whole.
    """
    wanted = weight_slices(model)
    report = _Reporter(wanted, progress)
    bound = 0.02 * 3**0.5
    for item in wanted:
        if len(item.shape) == 1:
            item.target.fill_(0.0 if item.name.endswith(".bias") else 1.0)
        else:
            generator = torch.Generator(item.target.device).manual_seed(zlib.crc32(item.name.encode()))
            if item.target.shape == item.shape:
                item.target.uniform_(-bound, bound, generator=generator)
            else:
                full = torch.empty(item.shape, dtype=item.target.dtype, device=item.target.device)
                item.target.copy_(full.uniform_(-bound, bound, generator=generator)[item.source])
        report.done(item)


class _Reporter:
    """Adds up what is loaded and tells the callback."""

    def __init__(self, wanted: list[WeightSlice], progress: Progress | None) -> None:
        self.total = sum(item.target.nbytes for item in wanted)
        self.bytes = 0
        self.progress = progress

    def done(self, item: WeightSlice) -> None:
        self.bytes += item.target.nbytes
        if self.progress is not None:
            self.progress(self.bytes, self.total)


def _locate(path: Path) -> Mapping[str, Path]:
    """The file of every tensor in the checkpoint."""
    index = path / INDEX_NAME
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ModelLoadError(index, "weight_map", "must map tensor names to file names")
        for name in sorted(set(weight_map.values())):
            # A name, not a path: an index must not lead out of its directory.
            if Path(name).name != name:
                raise ModelLoadError(index, "weight_map", f"{name!r} is not a plain file name")
            if not (path / name).is_file():
                raise ModelLoadError(path / name, "", f"is missing, but {INDEX_NAME} names it")
        return {tensor: path / name for tensor, name in weight_map.items()}
    single = path / SINGLE_NAME
    if not single.is_file():
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
        hint = f"; pickled weights ({pickled[0]}) are not loaded, convert them to safetensors" if pickled else ""
        raise ModelLoadError(path, "", f"has neither {SINGLE_NAME} nor {INDEX_NAME}{hint}")
    with _open(single) as tensors:
        return dict.fromkeys(tensors.keys(), single)


def _check_names(path: Path, wanted: list[WeightSlice], where: Mapping[str, Path], tied: bool) -> None:
    needed = {item.name for item in wanted}
    missing = sorted(needed - set(where))
    source = path / INDEX_NAME if (path / INDEX_NAME).exists() else path / SINGLE_NAME
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ModelLoadError(source, missing[0], f"the model needs this tensor, but it is missing{more}")
    extra = sorted(
        name for name in set(where) - needed if not _HARMLESS.search(name) and not (tied and name == "lm_head.weight")
    )
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise ModelLoadError(where[extra[0]], extra[0], f"the model has no use for this tensor{more}")


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(file, "", f"is not a whole safetensors file ({error})") from error


def _source(file: Path, tensors: Any, item: WeightSlice) -> Tensor:
    """What goes into `item`'s target, still in the file's map."""
    view = tensors.get_slice(item.name)
    found = tuple(view.get_shape())
    if found != item.shape:
        problem = f"expected shape {list(item.shape)}, found {list(found)}"
        raise ModelLoadError(file, item.name, problem)
    source: Tensor = view[item.source]
    if not source.is_floating_point():
        raise ModelLoadError(file, item.name, f"expected floating point numbers, found {source.dtype}")
    return source

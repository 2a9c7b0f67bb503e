"""From stored tensors to a model's parameters.

Each rank copies only its own slices from the files' maps to the parameters, casting on the way: no tensor exists twice,
and pages the rank does not need are never read.
"""

import re
import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.checkpoint.reader import Checkpoint
from radixmesh.services.model_worker.checkpoint.weight_slice import WeightSlice, weight_slices

# Called with (bytes done, bytes in all) of this rank's parameters after each tensor.
Progress = Callable[[int, int], None]

# Tables that old checkpoints stored and that are computed now.
_HARMLESS = re.compile(r"\.(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attn\.(bias|masked_bias))$")


def load_weights(
    model: nn.Module,
    checkpoint: Checkpoint,
    progress: Progress | None = None,
    deferred: Deferred | None = None,
) -> None:
    """Fill every parameter of `model` from `checkpoint`; what `deferred` puts off is left to it.

    Raises `ModelLoadError` naming file and tensor when something is missing, unexpected, misshapen or does not fit the
    parameters' dtype.
    """
    wanted = weight_slices(model)
    _check_names(wanted, checkpoint)
    report = _Reporter(wanted, progress)
    for item in sorted(wanted, key=lambda item: checkpoint.file(item.name)):
        source = _source(checkpoint, item)
        if deferred is None or not deferred.put_off(item, source):
            item.target.copy_(source)
            _check_range(checkpoint, item, source)
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


def _check_names(wanted: list[WeightSlice], checkpoint: Checkpoint) -> None:
    needed, stored = {item.name for item in wanted}, set(checkpoint.names)
    missing = sorted(needed - stored)
    if missing:
        problem = "by config.json the model needs this tensor, but it is missing"
        raise ModelLoadError(checkpoint.source, missing[0], problem + _and_more(missing))
    extra = sorted(name for name in stored - needed if not _HARMLESS.search(name))
    if extra:
        problem = "by config.json the model has no use for this tensor"
        raise ModelLoadError(checkpoint.file(extra[0]), extra[0], problem + _and_more(extra))


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _source(checkpoint: Checkpoint, item: WeightSlice) -> Tensor:
    """What goes into `item`'s target, still in the file's map."""
    found = checkpoint.shape(item.name)
    if found != item.shape:
        problem = f"expected shape {list(item.shape)} by config.json, found {list(found)}"
        raise ModelLoadError(checkpoint.file(item.name), item.name, problem)
    source: Tensor = checkpoint.view(item.name)[item.source]
    if not source.is_floating_point():
        problem = f"expected floating point numbers, found {source.dtype}"
        raise ModelLoadError(checkpoint.file(item.name), item.name, problem)
    return source


def _check_range(checkpoint: Checkpoint, item: WeightSlice, source: Tensor) -> None:
    """float16 ends at 65504, where other types go on."""
    if item.target.dtype is torch.float16 is not source.dtype and not item.target.isfinite().all():
        problem = f"holds numbers beyond float16; serve it in {str(source.dtype).removeprefix('torch.')} (--dtype)"
        raise ModelLoadError(checkpoint.file(item.name), item.name, problem)

"""From a directory to a model that is ready to run."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.services.model_worker.checkpoint.mapped import Deferred
from radixmesh.services.model_worker.checkpoint.reader import Checkpoint
from radixmesh.services.model_worker.checkpoint.weights import Progress, load_weights, random_weights
from radixmesh.services.model_worker.forward.description import ModelDescription
from radixmesh.services.model_worker.layers.linear import Build, Linear
from radixmesh.services.model_worker.models.config import DecoderConfig
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.describe import describe
from radixmesh.services.model_worker.models.registry import read_config

log = logging.getLogger(__name__)

LoadFormat = Literal["safetensors", "dummy"]

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model directory, its config put right by what is stored."""

    family: type[CausalLM]
    config: DecoderConfig
    dtype: torch.dtype
    """To serve in, if nobody wishes otherwise."""
    checkpoint: Checkpoint | None
    """None: the weights are made up."""


def open_model(path: Path | str, load_format: LoadFormat = "safetensors") -> ModelFiles:
    """Reads all of the Hugging Face directory `path` but the weights themselves.

    load_format: "dummy" needs `config.json` only and makes up the weights.

    Raises `ModelLoadError`, naming the file and the field or tensor at fault.
    """
    family, config = read_config(path)
    if load_format == "dummy":
        return ModelFiles(family, config, config.dtype or torch.float32, None)
    checkpoint = Checkpoint.open(config.path)
    layers = {int(found[1]) for name in checkpoint.names if (found := _LAYER.match(name))}
    if config.num_layers > len(layers):
        problem = f"is {config.num_layers}, but {checkpoint.source} holds {len(layers)} layers"
        raise ModelLoadError(config.path / "config.json", "num_hidden_layers", problem)
    config = replace(config, tie_word_embeddings=config.tie_word_embeddings and _tie(checkpoint))
    dtype = config.dtype or (checkpoint.dtype(_EMBEDDING) if _EMBEDDING in checkpoint.names else torch.float32)
    return ModelFiles(family, config, dtype, checkpoint)


def _tie(checkpoint: Checkpoint) -> bool:
    """Makes one of head and embedding, whichever is stored; False if both are, and differ."""
    if _HEAD not in checkpoint.names:
        return True
    if _EMBEDDING in checkpoint.names and not checkpoint.equal(_HEAD, _EMBEDDING):
        text = "config.json: tie_word_embeddings is true, but %s holds a %s of its own, which is used"
        log.warning(text, checkpoint.file(_HEAD), _HEAD)
        return False
    checkpoint.rename(_HEAD, _EMBEDDING)
    return True


def describe_model(files: ModelFiles, build: Build, max_length: int | None = None) -> ModelDescription:
    """What the model offers to a device, before there is memory for it; how `build` computes does not matter.

    Raises `ModelLoadError`, naming the file and the field at fault.
    """
    return describe(_make(files, replace(build, device=torch.device("meta")), max_length))


def load_model(
    files: ModelFiles,
    build: Build,
    max_length: int | None = None,
    progress: Progress | None = None,
    deferred: Deferred | None = None,
) -> CausalLM:
    """Loads this rank's slice of a model, in evaluation mode.

    Args:
        max_length: the longest sequence that will be served [tokens], if that is less than the model's.
        deferred: keeps the matrices; the model is not loaded until it is settled or they are taken from it.

    Raises `ModelLoadError`, naming the file and the field or tensor at fault.
    """
    model = _make(files, build, max_length)
    if files.checkpoint is None:
        random_weights(model, progress)
    else:
        load_weights(model, files.checkpoint, progress, deferred)
    for module in model.modules():
        if isinstance(module, Linear):
            module.finish()
    return model.eval()


def _make(files: ModelFiles, build: Build, max_length: int | None) -> CausalLM:
    config = files.config
    try:
        return files.family(config, build, max_length)
    except ValueError as error:  # sizes that the group cannot share
        raise ModelLoadError(config.path / "config.json", "", str(error)) from error
    except (MemoryError, RuntimeError) as error:  # torch has no type of its own for a CPU without memory
        problem = f"there is no memory for a model of these sizes ({error})"
        raise ModelLoadError(config.path / "config.json", "", problem) from error

"""From a directory to a model that is ready to run."""

from pathlib import Path
from typing import Literal

import torch

from radixmesh.services.model_worker.attention import create_backend
from radixmesh.services.model_worker.deferred import Deferred
from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.layers.linear import Build, Linear, LinearMethod, PlainLinear
from radixmesh.services.model_worker.layers.parallel import ParallelGroup
from radixmesh.services.model_worker.model_config import ModelConfig
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.registry import model_class
from radixmesh.services.model_worker.platform import Platform
from radixmesh.services.model_worker.weights import Progress, load_weights, random_weights

LoadFormat = Literal["safetensors", "dummy"]


def load_model(
    path: Path | str,
    platform: Platform,
    *,
    dtype: torch.dtype | None = None,
    kernels: bool = False,
    group: ParallelGroup | None = None,
    attention_backend: str | None = None,
    linear_method: LinearMethod | None = None,
    load_format: LoadFormat = "safetensors",
    max_length: int | None = None,
    progress: Progress | None = None,
    deferred: Deferred | None = None,
) -> CausalLM:
    """Load the Hugging Face directory `path`, this rank's slice of it, in evaluation mode.

    dtype: serve in this one; by default the checkpoint's, or what `platform` prefers to it.
    kernels: the CPU kernels will compute, not torch.
    group: the ranks to split over; by default this process alone.
    load_format: "dummy" needs `config.json` only and makes up the weights.
    max_length: the longest sequence that will be served [tokens]; bounds the rotary tables.
    deferred: keeps the matrices; the model is not loaded until it is settled or they are taken from it.

    Raises `ModelLoadError`, naming the file and the field or tensor at fault.
    """
    config = ModelConfig.load(path)
    build = Build(
        group=group or ParallelGroup(),
        dtype=dtype or platform.serving_dtype(config.dtype, kernels),
        device=platform.device,
        linear=linear_method or PlainLinear(),
    )
    backend = create_backend(attention_backend or platform.attention_backend)
    model_type = model_class(config)
    try:
        model = model_type(config, build, backend, max_length)
    except ValueError as error:  # sizes that the group cannot share
        raise ModelLoadError(config.path / "config.json", "", str(error)) from error
    if load_format == "dummy":
        random_weights(model, progress)
    else:
        load_weights(model, config.path, progress, config.tie_word_embeddings, deferred)
    for module in model.modules():
        if isinstance(module, Linear):
            module.finish()
    return model.eval()

"""The models, one file per family; `open_model`, `describe_model` and `load_model` are the way in."""

from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import LoadFormat, describe_model, load_model, open_model

__all__ = ["CausalLM", "LoadFormat", "describe_model", "load_model", "open_model"]

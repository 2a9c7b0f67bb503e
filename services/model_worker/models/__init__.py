"""The models, one file per family; `load_model` is the way in."""

from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import LoadFormat, load_model

__all__ = ["CausalLM", "LoadFormat", "load_model"]

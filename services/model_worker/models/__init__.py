"""The models, one file per family; `open_model` and `load_model` are the way in."""

from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.loading import LoadFormat, load_model, open_model

__all__ = ["CausalLM", "LoadFormat", "load_model", "open_model"]

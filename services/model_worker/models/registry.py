"""Models by the class name their Hugging Face config gives."""

from pathlib import Path

from radixmesh.services.model_worker.checkpoint.config import open_config
from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.models.config import DecoderConfig
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.llama import LlamaForCausalLM
from radixmesh.services.model_worker.models.mistral import MistralForCausalLM
from radixmesh.services.model_worker.models.qwen2 import Qwen2ForCausalLM
from radixmesh.services.model_worker.models.qwen3 import Qwen3ForCausalLM

MODELS: dict[str, type[CausalLM]] = {
    model.__name__: model for model in (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
}


def read_config(path: Path | str) -> tuple[type[CausalLM], DecoderConfig]:
    """The family of the model directory `path`, and its configuration. Raises `ModelLoadError`, naming the field."""
    fields = open_config(path)
    family = _family(fields)
    return family, family.read_config(fields)


def _family(fields: Fields) -> type[CausalLM]:
    names, kind = fields.raw.get("architectures"), fields.raw.get("model_type")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        family = next((model for model in MODELS.values() if model.model_type == kind), None)
        if family is None:
            problem = f"must list the model's class, not {names!r} (model_type: {kind!r})"
            raise fields.error("architectures", problem)
        return family
    if names[0] not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise fields.error("architectures", f"{names[0]!r} is not supported (known: {known})")
    return MODELS[names[0]]

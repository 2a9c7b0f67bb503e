"""Models by the class name their Hugging Face config gives."""

from radixmesh.services.model_worker.checkpoint.config import ModelConfig
from radixmesh.services.model_worker.errors import ModelLoadError
from radixmesh.services.model_worker.models.decoder import CausalLM
from radixmesh.services.model_worker.models.llama import LlamaForCausalLM
from radixmesh.services.model_worker.models.mistral import MistralForCausalLM
from radixmesh.services.model_worker.models.qwen2 import Qwen2ForCausalLM
from radixmesh.services.model_worker.models.qwen3 import Qwen3ForCausalLM

MODELS: dict[str, type[CausalLM]] = {
    model.__name__: model for model in (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
}


def model_class(config: ModelConfig) -> type[CausalLM]:
    """Raises `ModelLoadError` for an architecture that is not served."""
    if config.architecture not in MODELS:
        known = ", ".join(sorted(MODELS))
        problem = f"{config.architecture!r} is not supported (known: {known})"
        raise ModelLoadError(config.path / "config.json", "architectures", problem)
    return MODELS[config.architecture]

"""Mistral (arXiv:2310.06825): Llama with a sliding window in every layer and never a bias."""

from radixmesh.services.model_worker.checkpoint.config import ModelConfig
from radixmesh.services.model_worker.models.decoder import AttentionOptions, CausalLM


class MistralForCausalLM(CausalLM):
    """The window is `config.windows`, as for every family."""

    @staticmethod
    def attention_options(config: ModelConfig) -> AttentionOptions:
        return AttentionOptions()

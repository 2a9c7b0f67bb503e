"""Llama 1 to 3.3 and the many models in its shape (arXiv:2407.21783)."""

from radixmesh.services.model_worker.checkpoint.config import ModelConfig
from radixmesh.services.model_worker.models.decoder import AttentionOptions, CausalLM


class LlamaForCausalLM(CausalLM):
    """`attention_bias` of the config covers all four projections."""

    @staticmethod
    def attention_options(config: ModelConfig) -> AttentionOptions:
        return AttentionOptions(qkv_bias=config.attention_bias, output_bias=config.attention_bias)

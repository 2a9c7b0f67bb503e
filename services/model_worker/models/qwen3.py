"""Qwen3, dense (arXiv:2505.09388): no qkv bias, but an RMSNorm over each head of q and k."""

from radixmesh.services.model_worker.checkpoint.config import ModelConfig
from radixmesh.services.model_worker.models.decoder import AttentionOptions, CausalLM


class Qwen3ForCausalLM(CausalLM):
    """`attention_bias` of the config covers all four projections."""

    @staticmethod
    def attention_options(config: ModelConfig) -> AttentionOptions:
        return AttentionOptions(config.attention_bias, config.attention_bias, qk_norm=True)

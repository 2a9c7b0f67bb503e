"""Qwen2 and Qwen2.5 (arXiv:2407.10671): biased q, k, v; a sliding window in some layers when switched on."""

from radixmesh.services.model_worker.checkpoint.config import ModelConfig
from radixmesh.services.model_worker.models.decoder import AttentionOptions, CausalLM


class Qwen2ForCausalLM(CausalLM):
    """The bias is not in the config: it always is there."""

    @staticmethod
    def attention_options(config: ModelConfig) -> AttentionOptions:
        return AttentionOptions(qkv_bias=True)

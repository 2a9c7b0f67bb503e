"""Qwen3, dense (arXiv:2505.09388): no qkv bias, but an RMSNorm over each head of q and k."""

from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.models.config import DecoderConfig, decoder_config, windows_by_layer
from radixmesh.services.model_worker.models.decoder import CausalLM


class Qwen3ForCausalLM(CausalLM):
    """`attention_bias` covers all four projections. The head size does not follow from the hidden size."""

    model_type = "qwen3"

    @classmethod
    def read_config(cls, fields: Fields) -> DecoderConfig:
        bias, windows = fields.flag("attention_bias", False), windows_by_layer(fields)
        return decoder_config(
            fields, cls.__name__, head_dim=128, windows=windows, qkv_bias=bias, output_bias=bias, head_norm=True
        )

"""Llama 1 to 3.3 and the many models in its shape (arXiv:2407.21783)."""

from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.models.config import DecoderConfig, decoder_config
from radixmesh.services.model_worker.models.decoder import CausalLM


class LlamaForCausalLM(CausalLM):
    """`attention_bias` covers all four projections."""

    model_type = "llama"

    @classmethod
    def read_config(cls, fields: Fields) -> DecoderConfig:
        bias = fields.flag("attention_bias", False)
        return decoder_config(fields, cls.__name__, qkv_bias=bias, output_bias=bias)

"""Qwen2 and Qwen2.5 (arXiv:2407.10671): biased q, k, v; a sliding window in some layers when switched on."""

from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.models.config import DecoderConfig, decoder_config, windows_by_layer
from radixmesh.services.model_worker.models.decoder import CausalLM


class Qwen2ForCausalLM(CausalLM):
    """The bias is not in the config: it always is there."""

    model_type = "qwen2"

    @classmethod
    def read_config(cls, fields: Fields) -> DecoderConfig:
        return decoder_config(fields, cls.__name__, windows=windows_by_layer(fields), qkv_bias=True)

"""Mistral (arXiv:2310.06825): Llama with a sliding window in every layer and never a bias in attention."""

from radixmesh.services.model_worker.checkpoint.config import layer_count
from radixmesh.services.model_worker.checkpoint.fields import Fields
from radixmesh.services.model_worker.models.config import DecoderConfig, decoder_config, sliding_window
from radixmesh.services.model_worker.models.decoder import CausalLM


class MistralForCausalLM(CausalLM):
    """A window that is not in the config is 4096."""

    model_type = "mistral"

    @classmethod
    def read_config(cls, fields: Fields) -> DecoderConfig:
        return decoder_config(fields, cls.__name__, windows=(sliding_window(fields),) * layer_count(fields))

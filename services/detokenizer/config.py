"""Settings of the detokenizer."""

from pydantic import Field

from radixmesh.shared.config import ModelName, ServiceSettings
from radixmesh.shared.model_files import model_source


class DetokenizerSettings(ServiceSettings):
    """What a detokenizer can be told."""

    model: str = Field(min_length=1, description="Model directory, or Hugging Face hub id.")
    served_model_name: ModelName = Field(
        "", description="Name of the model in the mesh; default: last part of --model."
    )
    max_requests: int = Field(65536, ge=1, description="Requests that may be open at once.")
    hold_seconds: float = Field(
        2.0, gt=0, le=60, description="Seconds that tokens wait for the message that opens their request."
    )
    drain_timeout: float = Field(
        3.0, ge=0, le=600, description="Seconds after SIGTERM in which open requests may still end."
    )

    @property
    def model_name(self) -> str:
        return self.served_model_name or model_source.default_name(self.model)

"""Settings of the tokenizer."""

from typing import Annotated

from pydantic import AfterValidator, Field

from radixmesh.services.tokenizer.chat.reasoning import AUTO, NONE, TAGS, parser_name
from radixmesh.shared.config import ModelName, ServiceSettings
from radixmesh.shared.model_files import model_source


class TokenizerSettings(ServiceSettings):
    """What a tokenizer can be told."""

    model: str = Field(min_length=1, description="Model directory, or Hugging Face hub id.")
    served_model_name: ModelName = Field(
        "", description="Name of the model in the mesh; default: last part of --model."
    )
    reasoning_parser: Annotated[str, AfterValidator(parser_name)] = Field(
        AUTO,
        description=f"How the model marks its thoughts: {AUTO} (as its chat template does), {NONE}, {', '.join(TAGS)}.",
    )
    threads: int = Field(2, ge=1, le=64, description="Threads that encode long texts.")
    max_pending: int = Field(2048, ge=1, description="Requests that may be in work at once.")
    max_pending_bytes: int = Field(64 << 20, ge=1, description="Bytes of requests that may be in work at once.")
    balance_absolute: int = Field(
        8, ge=0, description="A replica is overloaded if it has this many sequences more than the least loaded one,"
    )
    balance_relative: float = Field(1.5, ge=1, description="and this many times as many.")
    prefix_share: float = Field(
        0.25, ge=0, le=1, description="Share of the prompt that a cached prefix must save to be worth following."
    )
    expect_seconds: float = Field(
        5.0, ge=0, le=600, description="Seconds for which a routed prompt counts as cached before its replica says so."
    )
    drain_timeout: float = Field(
        3.0, ge=0, le=600, description="Seconds after SIGTERM in which requests in work may still be sent on."
    )

    @property
    def model_name(self) -> str:
        return self.served_model_name or model_source.default_name(self.model)

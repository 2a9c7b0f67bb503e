"""Settings of the gateway."""

import re
from typing import Annotated

from pydantic import Field, PlainValidator
from pydantic_settings import NoDecode

from radixmesh.shared.config import ApiKey, ServiceSettings

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#@:*\[\]\s]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class Origins(frozenset[str]):
    """Origins of web pages, as browsers write them: ``https://chat.example.org``. One that is ``*`` stands for all."""

    def __str__(self) -> str:
        return ",".join(sorted(self)) or "none"


def _origins(value: str | Origins) -> Origins:
    """Reads what is separated by commas. Raises ValueError."""
    if isinstance(value, Origins):
        return value
    if value.strip().lower() == "none":
        return Origins()
    found = Origins(filter(None, (origin.strip().rstrip("/").lower() for origin in value.split(","))))
    for origin in found - {"*", "null"}:  # null: a page that was opened from a file
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} does not read like https://HOST or https://HOST:PORT")
    return found


class GatewaySettings(ServiceSettings):
    """Where the gateway listens, and how much and how long it lets clients ask for."""

    http_host: str = Field("127.0.0.1", description="Address for HTTP.")
    http_port: int = Field(8000, ge=0, le=65535, description="Port for HTTP; 0 takes a free one.")
    grpc_host: str = Field("127.0.0.1", description="Address for gRPC.")
    grpc_port: int = Field(50051, ge=-1, le=65535, description="Port for gRPC; 0 takes a free one, -1 is off.")
    api_key: ApiKey | None = Field(None, description="Key that clients must send, as bearer token or x-api-key.")
    strict_model_names: bool = Field(
        False, description="Refuse unknown model names; else, where one model is served, it goes by any name."
    )
    cors_origins: Annotated[Origins, NoDecode, PlainValidator(_origins)] = Field(
        Origins({"*"}), description="Origins of web pages that may call, separated by commas: '*' is all, 'none' none."
    )
    request_timeout: float = Field(600.0, gt=0, le=86400, description="Seconds a request may take in all.")
    ready_wait: float = Field(30.0, ge=0, le=3600, description="Seconds a new request waits for a replica to be ready.")
    route_timeout: float = Field(
        10.0, gt=0, le=3600, description="Seconds after which a request that no tokenizer took is sent again."
    )
    stall_timeout: float = Field(
        60.0, gt=0, le=86400, description="Seconds without a token, queueing aside, until a request is sent again."
    )
    max_attempts: int = Field(5, ge=1, le=100, description="How often a request is sent round the ring in all.")
    max_body_bytes: int = Field(33554432, ge=1024, description="Largest request body.")
    max_inflight: int = Field(4096, ge=1, description="Prompts in work at once; more get 429.")
    max_pending_chars: int = Field(
        1 << 20, ge=1024, description="Text kept for a client that does not read; beyond it the request is cancelled."
    )
    client_timeout: float = Field(
        60.0, gt=0, le=86400, description="Seconds a client may take to send its body, or leave its stream unread."
    )
    drain_timeout: float = Field(4.0, ge=0, le=3600, description="Seconds to finish requests after SIGTERM.")

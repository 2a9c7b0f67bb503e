"""Every error RadixMesh raises on purpose.

    RadixMeshError
    ├── ConfigError          a setting, flag or environment variable is wrong
    ├── MessageError         bytes from the bus are not a message we know
    │   └── PayloadTooLarge  a message does not fit the server's max_payload
    ├── BusError             the bus could not be reached or did not answer
    ├── ModelLoadError       a model directory is incomplete, malformed or unsupported
    └── RequestError         one request cannot be served; carries what the client is told

A `RequestError` crosses process borders as a `RequestFailed` message; the gateway turns its `ErrorCode`
into an HTTP or gRPC status by one table.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable names of the ways a request can fail. Clients see them; never rename one."""

    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    MODEL_NOT_FOUND = "model_not_found"
    REQUEST_TOO_LARGE = "request_too_large"
    UNAUTHENTICATED = "invalid_api_key"
    QUEUE_FULL = "queue_full"
    NOT_READY = "not_ready"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    REPLICA_LOST = "replica_lost"
    INTERNAL = "internal_error"


class RadixMeshError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(RadixMeshError):
    """A setting, flag or environment variable is wrong; the text names it."""


class MessageError(RadixMeshError):
    """Bytes from the bus are not a message we know; the text says which part is wrong."""


class PayloadTooLarge(MessageError):
    """A packed message is larger than the server's max_payload (bytes)."""

    def __init__(self, kind: str, size: int, limit: int) -> None:
        super().__init__(f"{kind} packs to {size} bytes, over the bus's limit of {limit} bytes")
        self.size = size
        self.limit = limit


class BusError(RadixMeshError):
    """The bus could not be reached, or nobody answered in time."""


class ModelLoadError(RadixMeshError):
    """A model directory is incomplete, malformed or unsupported; the text names file and field."""


class RequestError(RadixMeshError):
    """One request cannot be served.

    Args:
        code: the stable error name.
        message: one sentence for the client; names what is wrong and the limit.
        param: the request field at fault, if one is.
        retry_after: seconds after which trying again may help, if it may.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

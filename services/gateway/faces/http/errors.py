"""How each error reaches HTTP clients: one table from `ErrorCode` to status and OpenAI error type.

Its counterpart for gRPC is `faces/grpc/statuses.py`; this one must not need grpc.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from radixmesh.shared.errors import ErrorCode, RequestError

ErrorForm = Callable[[RequestError, int], dict[str, Any]]
"""How a face writes an error, with HTTP's status, as a JSON object."""


class Status(NamedTuple):
    """What clients see of an error."""

    http: int
    kind: str
    """`type` in OpenAI's error object."""


STATUSES: dict[ErrorCode, Status] = {
    ErrorCode.INVALID_REQUEST: Status(400, "invalid_request_error"),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Status(400, "invalid_request_error"),
    ErrorCode.UNAUTHENTICATED: Status(401, "authentication_error"),
    ErrorCode.MODEL_NOT_FOUND: Status(404, "invalid_request_error"),
    ErrorCode.REQUEST_TOO_LARGE: Status(413, "invalid_request_error"),
    ErrorCode.QUEUE_FULL: Status(429, "rate_limit_error"),
    ErrorCode.CANCELLED: Status(499, "cancelled_error"),
    ErrorCode.INTERNAL: Status(500, "server_error"),
    ErrorCode.NOT_READY: Status(503, "server_error"),
    ErrorCode.REPLICA_LOST: Status(503, "server_error"),
    ErrorCode.DEADLINE_EXCEEDED: Status(504, "timeout_error"),
}


class ProtocolError(RequestError):
    """Has a status of its own, but no code of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, message)
        self.status = status


def status_of(error: RequestError) -> int:
    """HTTP's status."""
    return error.status if isinstance(error, ProtocolError) else STATUSES[error.code].http


def error_object(error: RequestError, status: int | None = None) -> dict[str, Any]:
    """OpenAI's error object, and beside it the flat form that clients of other servers read.

    Args:
        status: HTTP's, where it is not the error's own.
    """
    told = {"message": error.message, "type": STATUSES[error.code].kind, "param": error.param}
    flat = {"object": "error", **told, "code": status_of(error) if status is None else status}
    return {"error": {**told, "code": error.code.value}, **flat}

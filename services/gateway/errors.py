"""How each error reaches HTTP clients: one table from `ErrorCode` to status and OpenAI error type.

Its counterpart for gRPC is `grpc/statuses.py`; this one must not need grpc.
"""

import json
import math
from typing import Any, NamedTuple

from pydantic import ValidationError

from radixmesh.shared.errors import ErrorCode, RequestError


class Face(NamedTuple):
    """What clients see of an error."""

    http: int
    kind: str
    """`type` in OpenAI's error object."""


FACES: dict[ErrorCode, Face] = {
    ErrorCode.INVALID_REQUEST: Face(400, "invalid_request_error"),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: Face(400, "invalid_request_error"),
    ErrorCode.UNAUTHENTICATED: Face(401, "authentication_error"),
    ErrorCode.MODEL_NOT_FOUND: Face(404, "invalid_request_error"),
    ErrorCode.REQUEST_TOO_LARGE: Face(413, "invalid_request_error"),
    ErrorCode.QUEUE_FULL: Face(429, "rate_limit_error"),
    ErrorCode.CANCELLED: Face(499, "cancelled_error"),
    ErrorCode.INTERNAL: Face(500, "server_error"),
    ErrorCode.NOT_READY: Face(503, "server_error"),
    ErrorCode.REPLICA_LOST: Face(503, "server_error"),
    ErrorCode.DEADLINE_EXCEEDED: Face(504, "timeout_error"),
}


def error_object(error: RequestError, status: int | None = None) -> dict[str, Any]:
    """OpenAI's error object, and beside it the flat form that clients of other servers read.

    Args:
        status: HTTP's, where it is not the code's own.
    """
    told = {"message": error.message, "type": FACES[error.code].kind, "param": error.param}
    flat = {"object": "error", **told, "code": FACES[error.code].http if status is None else status}
    return {"error": {**told, "code": error.code.value}, **flat}


def error_body(error: RequestError, status: int | None = None) -> bytes:
    """`error_object` as JSON."""
    return json.dumps(error_object(error, status)).encode()


def retry_after(error: RequestError) -> dict[str, str]:
    """The Retry-After header, in whole seconds, if there is something to say."""
    return {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


def invalid(message: str, param: str | None = None) -> RequestError:
    """A request with a wrong field, or wrong as a whole."""
    return RequestError(ErrorCode.INVALID_REQUEST, message, param=param)


def unknown_model(name: str) -> RequestError:
    """A model that nobody in the mesh serves; empty where the only one is meant, and there is none."""
    text = f"the mesh serves no model named {name[:200]!r}" if name else "the mesh serves no model yet"
    return RequestError(ErrorCode.MODEL_NOT_FOUND, text, param="model")


def from_validation(error: ValidationError) -> RequestError:
    """The first thing that pydantic found wrong, with its dotted path as `param`."""
    found = error.errors(include_url=False, include_context=False)
    # A union reports one error per member; the one that got deepest is about the form that the client meant.
    first = max(found, key=lambda item: len(item["loc"])) if found else None
    if first is None:
        return invalid("the request is malformed")
    path = ".".join(str(part) for part in first["loc"] if not _is_union_tag(part))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        message = "this field is required"
    return invalid(f"{path}: {message}" if path else message, path or None)


def _is_union_tag(part: int | str) -> bool:
    """Pydantic names the tried member of a union in its path, as in `stop.list[str].0`."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or "[" in part or "(" in part)

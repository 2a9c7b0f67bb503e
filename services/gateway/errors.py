"""What faces and requests alike say of a request that cannot be served."""

import math

from radixmesh.shared.errors import ErrorCode, RequestError


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

"""How each error reaches gRPC clients: one table from `ErrorCode` to status."""

from grpc import StatusCode

from radixmesh.shared.errors import ErrorCode

STATUSES: dict[ErrorCode, StatusCode] = {
    ErrorCode.INVALID_REQUEST: StatusCode.INVALID_ARGUMENT,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
    ErrorCode.MODEL_NOT_FOUND: StatusCode.NOT_FOUND,
    ErrorCode.REQUEST_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.QUEUE_FULL: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.CANCELLED: StatusCode.CANCELLED,
    ErrorCode.INTERNAL: StatusCode.INTERNAL,
    ErrorCode.NOT_READY: StatusCode.UNAVAILABLE,
    ErrorCode.REPLICA_LOST: StatusCode.UNAVAILABLE,
    ErrorCode.DEADLINE_EXCEEDED: StatusCode.DEADLINE_EXCEEDED,
}

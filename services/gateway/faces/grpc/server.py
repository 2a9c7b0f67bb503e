"""The gRPC server: RadixMesh, health and reflection on one port."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.faces.grpc import radixmesh_pb2
from radixmesh.services.gateway.faces.grpc.servicer import MALFORMED, Servicer
from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.services.gateway.requests.submission import Submitter
from radixmesh.shared.errors import RadixMeshError

_SERVICE = radixmesh_pb2.DESCRIPTOR.services_by_name["RadixMesh"]
_NAME = _SERVICE.full_name


class GrpcServer:
    """Runs RadixMesh and its neighbours; says SERVING only when told that requests would be served."""

    def __init__(self, submitter: Submitter, metrics: Metrics, settings: GatewaySettings) -> None:
        self._host, self._port = settings.grpc_host, settings.grpc_port
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        self._server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", settings.max_body_bytes), ("grpc.so_reuseport", 0)]
        )
        servicer = Servicer(submitter, metrics, key)
        self._server.add_generic_rpc_handlers((_handlers(servicer),))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # missing in its stubs
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self._healthy: bool | None = None

    async def start(self) -> str:
        """Gives the address, host:port. Raises RadixMeshError if it cannot be had."""
        await self.set_health(False)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = self._server.add_insecure_port(f"{host}:{self._port}")
        except (RuntimeError, UnicodeError) as error:
            raise RadixMeshError(f"cannot listen on {host}:{self._port}: {error}") from error
        await self._server.start()
        return f"{host}:{port}"

    async def stop(self) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(0.2)

    async def set_health(self, healthy: bool) -> None:
        """Tells the watchers, if this is news."""
        if healthy is self._healthy:
            return
        self._healthy = healthy
        states = health_pb2.HealthCheckResponse
        for name in ("", _NAME):
            await self._health.set(name, states.SERVING if healthy else states.NOT_SERVING)


def _handlers(servicer: Servicer) -> "grpc.GenericRpcHandler[Any, Any]":
    """As the generated code registers them, but for requests that are no messages: it lets the server fail on them."""
    handlers = {}
    for method in _SERVICE.methods:
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        handlers[method.name] = make(
            getattr(servicer, method.name),
            request_deserializer=_reader(getattr(radixmesh_pb2, method.input_type.name)),
            response_serializer=getattr(radixmesh_pb2, method.output_type.name).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(_NAME, handlers)


def _reader(kind: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return MALFORMED

    return read

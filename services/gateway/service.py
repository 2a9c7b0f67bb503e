"""The gateway on the bus: listens for clients, sends their requests round the ring, and hands back what comes."""

import asyncio
import contextlib
import logging
from typing import Any, ClassVar

from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.faces.grpc.server import GrpcServer
from radixmesh.services.gateway.faces.http.application import application
from radixmesh.services.gateway.faces.http.server import HttpServer
from radixmesh.services.gateway.faces.openai import face as openai
from radixmesh.services.gateway.faces.operators import face as operators
from radixmesh.services.gateway.faces.operators.caches import flush_caches
from radixmesh.services.gateway.requests.mesh import MeshView
from radixmesh.services.gateway.requests.metrics import Metrics
from radixmesh.services.gateway.requests.ports import Limits
from radixmesh.services.gateway.requests.recorder import Recorder
from radixmesh.services.gateway.requests.submission import Submitter
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Cancel, Presence, RequestFailed, Routed, State, Submit, TextBatch

log = logging.getLogger(__name__)


class Gateway(Actor):
    """Owns requests: from a client's bytes to the last of its stream."""

    service: ClassVar[str] = "gateway"

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self.http_url = ""
        self.grpc_address = ""
        self._mesh = MeshView(self.members, lambda: self.bus.connected, settings.strict_model_names)
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self.metrics = Metrics(self._mesh, lambda: len(self.submitter.table))
        self.submitter = Submitter(
            self.instance,
            settings.request_timeout,
            Limits(**{name: getattr(settings, name) for name in Limits.__dataclass_fields__}),
            self._mesh,
            Recorder(self.metrics),
            self._publish,
        )

    # -- life --

    async def setup(self) -> None:
        """Raises RadixMeshError if an address cannot be had."""
        table, send, now = self.submitter.table, self.submitter.send, self.submitter.now
        self.on(Routed, lambda message, _: send(table.routed(message, now())))
        self.on(TextBatch, lambda message, _: send(table.text(message, now())))
        self.on(RequestFailed, self._failed)
        self.on(Cancel, lambda message, _: send(table.cancelled_elsewhere(message, now())))
        self.members.on_change.append(self._presence_changed)
        self.bus.on_reconnect.append(self._reconnected)
        await self.listen(self.subjects.gateway_inbox(self.instance))
        await self.listen(self.subjects.cancel)
        self.spawn(self.submitter.mail(), essential=True)
        self.spawn(self._clock(), essential=True)
        await self._open_http()
        await self._open_grpc()
        log.info("serving HTTP on %s%s", self.http_url, f", gRPC on {self.grpc_address}" if self.grpc_address else "")

    async def drain(self) -> None:
        """Refuses new requests, and gives those in work `drain_timeout` seconds."""
        self.submitter.closed = True
        await self._tell_health()
        end = self.submitter.now() + self._settings.drain_timeout
        while len(self.submitter.table) and self.submitter.now() < end:  # noqa: ASYNC110  the table is pure and has no events
            await asyncio.sleep(0.02)

    async def teardown(self) -> None:
        self.submitter.closed = True
        for request in self.submitter.table:
            ending = RequestError(ErrorCode.NOT_READY, "this gateway is shutting down", retry_after=1.0)
            self.submitter.send(self.submitter.table.fail(request.request_id, ending, self.submitter.now()))
        if self._grpc is not None:
            await self._grpc.stop()
        if self._http is not None:
            await self._http.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.submitter.flushed(), 1.0)

    def presence_attributes(self) -> dict[str, Any]:
        return {"http_url": self.http_url, "grpc_address": self.grpc_address, "inflight": len(self.submitter.table)}

    def not_ready(self) -> dict[str, str]:
        """By model, what keeps requests from being served; empty if those for one model would be."""
        if self.submitter.closed:
            return {"": "this gateway is shutting down"}
        return self._mesh.not_ready()

    # -- listening --

    async def _open_http(self) -> None:
        settings = self._settings
        faces = [
            *openai.endpoints(self.submitter),
            *operators.endpoints(self._mesh, self.metrics, self.not_ready, self._flush),
        ]
        app = application(faces, self.metrics, settings)
        self._http = HttpServer(app, settings.http_host, settings.http_port)
        self.http_url = await self._http.start()

    async def _open_grpc(self) -> None:
        if self._settings.grpc_port < 0:
            return
        self._grpc = GrpcServer(self.submitter, self.metrics, self._settings)
        self.grpc_address = await self._grpc.start()
        await self._tell_health()

    async def _flush(self) -> list[dict[str, Any]]:
        return await flush_caches(self.bus, self.subjects, self._mesh.replicas())

    # -- events --

    async def _publish(self, message: Submit | Cancel, headers: dict[str, str] | None) -> None:
        subject = self.subjects.cancel if isinstance(message, Cancel) else self.subjects.submit(message.model)
        await self.bus.publish(subject, message, headers)

    def _presence_changed(self, before: Presence | None, member: Presence | None) -> None:
        self._mesh.changed()
        self.submitter.changed.set()
        if before is not None and member is None:
            again = self.submitter.table.gone(before.instance, before.epoch, self.submitter.now())
            if again:
                log.warning("%s is gone; requests that it held go round again", before.instance)
            self.submitter.send(again)
            return
        if member is not None and before is None:
            self.submitter.table.came(member.instance, member.epoch)
        if member is not None and member.state is State.READY and (before is None or before.state != member.state):
            self.submitter.send(self.submitter.table.mesh_changed(self.submitter.now()))

    def _failed(self, message: RequestFailed, _envelope: Envelope) -> None:
        self.submitter.send(self.submitter.table.failed(message, self.submitter.now()))
        self.submitter.changed.set()  # it may have been put off without a word

    async def _reconnected(self) -> None:
        self.submitter.send(self.submitter.table.reconnected(self.submitter.now()))

    async def _clock(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.submitter.table.pause(self.submitter.now())):
                    await self.submitter.changed.wait()
            self.submitter.changed.clear()
            self.submitter.send(self.submitter.table.tick(self.submitter.now()))
            await self._tell_health()

    async def _tell_health(self) -> None:
        if self._grpc is not None:
            await self._grpc.set_health(not self.not_ready())

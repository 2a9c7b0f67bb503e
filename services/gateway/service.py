"""The gateway on the bus: listens for clients, sends their requests round the ring, and hands back what comes."""

import asyncio
import contextlib
import logging
from typing import Any, ClassVar, cast

from aiohttp import web

from radixmesh.services.gateway.caches import flush_caches
from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.gateway.connection import Connection
from radixmesh.services.gateway.desk import Desk
from radixmesh.services.gateway.grpc.server import GrpcFace
from radixmesh.services.gateway.http import SERVER_LOG, HttpFace
from radixmesh.services.gateway.mesh import MeshView
from radixmesh.services.gateway.metrics import Metrics
from radixmesh.services.gateway.ports import Limits
from radixmesh.services.gateway.watch import Watch
from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.errors import ErrorCode, RadixMeshError, RequestError
from radixmesh.shared.messages import Cancel, Presence, RequestFailed, Routed, State, Submit, TextBatch

log = logging.getLogger(__name__)

_BACKLOG = 128
"""Connections that the kernel keeps until they are accepted."""


class Gateway(Actor):
    """Owns requests: from a client's bytes to the last of its stream."""

    service: ClassVar[str] = "gateway"

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self.http_url = ""
        self.grpc_address = ""
        self._mesh = MeshView(self.members, lambda: self.bus.connected, settings.strict_model_names)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._grpc: GrpcFace | None = None
        limits = Limits(**{name: getattr(settings, name) for name in Limits.__dataclass_fields__})
        watch = Watch()
        self.desk = Desk(self.instance, settings.request_timeout, limits, self._mesh, watch, self._publish)
        self.metrics = watch.metrics = Metrics(self._mesh, lambda: len(self.desk.table))

    # -- life --

    async def setup(self) -> None:
        """Raises RadixMeshError if an address cannot be had."""
        table, send, now = self.desk.table, self.desk.send, self.desk.now
        self.on(Routed, lambda message, _: send(table.routed(message, now())))
        self.on(TextBatch, lambda message, _: send(table.text(message, now())))
        self.on(RequestFailed, self._failed)
        self.on(Cancel, lambda message, _: send(table.cancelled_elsewhere(message, now())))
        self.members.on_change.append(self._presence_changed)
        self.bus.on_reconnect.append(self._reconnected)
        await self.listen(self.subjects.gateway_inbox(self.instance))
        await self.listen(self.subjects.cancel)
        self.spawn(self.desk.mail(), essential=True)
        self.spawn(self._clock(), essential=True)
        await self._open_http()
        await self._open_grpc()
        log.info("serving HTTP on %s%s", self.http_url, f", gRPC on {self.grpc_address}" if self.grpc_address else "")

    async def drain(self) -> None:
        """Refuses new requests, and gives those in work `drain_timeout` seconds."""
        self.desk.closed = True
        await self._tell_health()
        end = self.desk.now() + self._settings.drain_timeout
        while len(self.desk.table) and self.desk.now() < end:  # noqa: ASYNC110  the table is pure and has no events
            await asyncio.sleep(0.02)

    async def teardown(self) -> None:
        self.desk.closed = True
        for live in self.desk.table:
            ending = RequestError(ErrorCode.NOT_READY, "this gateway is shutting down", retry_after=1.0)
            self.desk.send(self.desk.table.fail(live.request_id, ending, self.desk.now()))
        if self._grpc is not None:
            await self._grpc.stop()
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.desk.flushed(), 1.0)

    def presence_attributes(self) -> dict[str, Any]:
        return {"http_url": self.http_url, "grpc_address": self.grpc_address, "inflight": len(self.desk.table)}

    def not_ready(self) -> dict[str, str]:
        """By model, what keeps requests from being served; empty if those for one model would be."""
        if self.desk.closed:
            return {"": "this gateway is shutting down"}
        return self._mesh.not_ready()

    # -- listening --

    async def _open_http(self) -> None:
        settings = self._settings
        face = HttpFace(self.desk, self.metrics, self.not_ready, self._flush, settings)
        self._runner = web.AppRunner(
            face.app, access_log=None, logger=SERVER_LOG, handler_cancellation=True, shutdown_timeout=0.5
        )
        await self._runner.setup()
        server = cast("web.Server", self._runner.server)  # None only before setup
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(server()), settings.http_host, settings.http_port, backlog=_BACKLOG
            )
        except (OSError, UnicodeError) as error:  # the latter: a part of the name is empty or over 63 characters
            raise RadixMeshError(f"cannot listen on {settings.http_host}:{settings.http_port}: {error}") from error
        host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
        self.http_url = f"http://{host}:{self._listener.sockets[0].getsockname()[1]}"

    async def _open_grpc(self) -> None:
        if self._settings.grpc_port < 0:
            return
        self._grpc = GrpcFace(self.desk, self.metrics, self._settings)
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
        self.desk.changed.set()
        if before is not None and member is None:
            again = self.desk.table.gone(before.instance, before.epoch, self.desk.now())
            if again:
                log.warning("%s is gone; requests that it held go round again", before.instance)
            self.desk.send(again)
            return
        if member is not None and before is None:
            self.desk.table.came(member.instance, member.epoch)
        if member is not None and member.state is State.READY and (before is None or before.state != member.state):
            self.desk.send(self.desk.table.mesh_changed(self.desk.now()))

    def _failed(self, message: RequestFailed, _envelope: Envelope) -> None:
        self.desk.send(self.desk.table.failed(message, self.desk.now()))
        self.desk.changed.set()  # it may have been put off without a word

    async def _reconnected(self) -> None:
        self.desk.send(self.desk.table.reconnected(self.desk.now()))

    async def _clock(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.desk.table.pause(self.desk.now())):
                    await self.desk.changed.wait()
            self.desk.changed.clear()
            self.desk.send(self.desk.table.tick(self.desk.now()))
            await self._tell_health()

    async def _tell_health(self) -> None:
        if self._grpc is not None:
            await self._grpc.set_health(not self.not_ready())

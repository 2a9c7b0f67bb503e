"""The frame of every service: a mailbox, one handler per message type, a heartbeat, and an orderly end.

A service derives from `Actor`, registers handlers in `setup`, and is run by `main`. Handlers run one after the other,
in the order in which messages came, but control traffic before new requests (`mailbox`); one that has long work to do
starts a task for it. What a handler raises fails the request that the message belongs to, and nothing else.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any, ClassVar

from nats.aio.subscription import Subscription

from radixmesh.shared.actor.dispatch import Dispatcher, Handler, M
from radixmesh.shared.actor.mailbox import Lane, Mailbox, lane_of
from radixmesh.shared.actor.membership import Membership, announce
from radixmesh.shared.actor.tasks import Tasks
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode, PayloadTooLarge, RadixMeshError, RequestError
from radixmesh.shared.messages import Message, Outdated, Presence, Refused, RequestFailed, State, WhoIsThere
from radixmesh.shared.presence.epochs import Epoch
from radixmesh.shared.presence.view import PresenceView
from radixmesh.shared.subjects import Subjects

log = logging.getLogger(__name__)


class Actor:
    """One service process on the bus.

    Override `setup` (subscribe, load), `teardown`, `readiness` and `presence_attributes`.
    """

    service: ClassVar[str]
    """Name in presence and traces: gateway, tokenizer, scheduler, model_worker, detokenizer."""

    watches: ClassVar[tuple[str, ...]] = ("*",)
    """Services whose members are kept in `members`; "*" for all. Every heartbeat heard is a process woken."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.instance = settings.instance_name(self.service)
        self.subjects = Subjects(settings.namespace)
        self.members = PresenceView()
        self.bus: Bus
        self._base = settings
        self._host = socket.gethostname()
        self._own_epoch = Epoch()
        self._mailbox = Mailbox(settings.mailbox_size)
        self._dispatcher = Dispatcher(self._mailbox, self.fail_request)
        self._tasks = Tasks()
        self._state = State.STARTING
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    # -- what services override --

    async def setup(self) -> None:
        """Registers handlers, subscribes, loads. The heartbeat says `starting` until this returns."""

    async def teardown(self) -> None:
        """Ends what `setup` began. The bus is still open."""

    async def drain(self) -> None:
        """After SIGTERM: returns when nothing is left that others wait for, or gives up soon."""

    def readiness(self) -> str:
        """Why this service cannot do its work now, in a few words for people; empty if it can."""
        return ""

    def model(self) -> str:
        """Name of the model that this service serves; empty if it serves any."""
        return ""

    def presence_attributes(self) -> dict[str, Any]:
        """Load and limits, told to everyone with each heartbeat. Plain values only."""
        return {}

    def epoch_raised(self) -> None:
        """Others knew a higher epoch of this name, and count this service as new from now on."""

    # -- what services use --

    def on(self, kind: type[M], handler: Handler[M]) -> None:
        """Sets the one handler for messages of `kind`."""
        self._dispatcher.on(kind, handler)

    async def listen(self, subject: str, *, queue: str = "") -> Subscription:
        """Lets messages on `subject` into the mailbox."""
        return await self.bus.subscribe(subject, self._enqueue, queue=queue)

    def spawn(self, work: Coroutine[Any, Any, Any], *, essential: bool = False) -> asyncio.Task[Any]:
        """Runs `work` beside the mailbox. If `essential`, its failure ends the service."""
        return self._tasks.spawn(work, self.stop if essential else None)

    def stop(self, failure: BaseException | None = None) -> None:
        """Begins the orderly end; with a `failure`, the process exits with 1."""
        if failure is not None and self._failure is None:
            self._failure = failure
        self._stopping.set()

    @property
    def draining(self) -> bool:
        return self._stopping.is_set()

    @property
    def epoch(self) -> int:
        """Higher than that of every process that had this name before, as soon as others have told of it."""
        return self._own_epoch.value

    async def beat(self) -> None:
        """Sends a heartbeat now: call when readiness or load changes in a way that others should know at once."""
        await self.bus.publish(self.subjects.presence(self.service), self._presence())

    async def reply(self, envelope: Envelope, message: Message) -> None:
        """Answers a request; does nothing if no answer was asked for. One too large for the bus becomes a refusal."""
        if not envelope.reply:
            return
        try:
            await self.bus.publish(envelope.reply, message)
        except PayloadTooLarge as error:
            await self.bus.publish(envelope.reply, Refused(reason=str(error)))

    async def fail_request(self, message: Message, error: Exception) -> None:
        """Tells the gateway that the request which `message` belongs to has failed.

        A `RequestError` is told as it is; anything else as an internal error, without its text.
        """
        request_id, gateway_id = getattr(message, "request_id", None), getattr(message, "gateway_id", None)
        if request_id is None or gateway_id is None:
            return
        if not isinstance(error, RequestError):
            log.error("request %s failed", request_id, exc_info=error)
            error = RequestError(ErrorCode.INTERNAL, f"the {self.service} failed on this request")
        failed = RequestFailed(
            request_id=request_id,
            attempt=getattr(message, "attempt", 0),
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after=error.retry_after,
            service=self.service,
        )
        await self.bus.publish(self.subjects.gateway_inbox(gateway_id), failed)

    # -- life --

    async def run(self) -> None:
        """Serves until `stop` is called or a signal comes.

        Raises:
            BusError: no NATS server.
            Exception: whatever `setup` or an essential task raised.
        """
        connecting = asyncio.ensure_future(Bus.connect(self._base, self.instance))
        if not await self._before_the_end(connecting):  # told to end while the server is still away
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            return
        self.bus = connecting.result()
        try:
            await self._serve()
        finally:
            await self._end()
        if self._failure is not None:
            raise self._failure

    async def _serve(self) -> None:
        await self._join()
        setup = asyncio.ensure_future(self.setup())
        self._tasks.cancel_too(setup)  # in an early end; its error is raised below
        if not await self._before_the_end(setup):
            return
        setup.result()
        metadata = {"instance": self.instance, "epoch": str(self.epoch), "model": self.model()}
        self._registered = await announce(self.bus, self.service, metadata)
        log.info("%s is up", self.instance)
        await self._go_on_as(State.READY)
        await self._stopping.wait()
        await self._go_on_as(State.DRAINING)
        if self._failure is None:
            await self.drain()

    async def _join(self) -> None:
        """Becomes a member: hears messages and heartbeats, and sends its own."""
        membership = Membership(self.bus, self.subjects, self._own_epoch, self.members, self.beat, self.spawn)
        self.on(WhoIsThere, lambda _message, _envelope: self.beat())
        self.on(Outdated, self._on_outdated)
        self.on(Presence, lambda beat, _envelope: self.members.update(beat))
        heard = [self.subjects.presence(service) for service in self.watches]
        for subject in (self.subjects.outdated(self.instance), self.subjects.who, *heard):
            await self.listen(subject)
        self.spawn(self._dispatcher.run(), essential=True)
        self.spawn(membership.keep_beating(self._base.heartbeat_interval, self._host), essential=True)
        await membership.ask()

    async def _end(self) -> None:
        self._stopping.set()
        try:
            await self.teardown()
            await self._go_on_as(State.GONE)
        except (RadixMeshError, OSError) as error:
            log.warning("while ending: %s", error)
        await self._tasks.cancel()
        await self.bus.close()

    async def _before_the_end(self, work: asyncio.Future[Any]) -> bool:
        """Waits for `work`; False if `stop` is called before that is done."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        return work.done()

    async def _go_on_as(self, state: State) -> None:
        self._state = state
        await self.beat()

    def _presence(self) -> Presence:
        state, detail = self._state, ""
        if state is State.READY and (detail := self.readiness()):
            state = State.STARTING
        return Presence(
            service=self.service,
            instance=self.instance,
            epoch=self.epoch,
            host=self._host,
            state=state,
            detail=detail,
            model=self.model(),
            interval=self._base.heartbeat_interval,
            attributes={"pid": os.getpid(), **self.presence_attributes()},
        )

    # -- what comes --

    def _enqueue(self, envelope: Envelope) -> None:
        lane = lane_of(envelope)
        if not self._mailbox.put(envelope, lane) and lane is Lane.REQUESTS:
            self.spawn(self._refuse(envelope))

    async def _refuse(self, envelope: Envelope) -> None:
        error = RequestError(ErrorCode.QUEUE_FULL, f"the {self.service} is overloaded", retry_after=1.0)
        await self.fail_request(envelope.unpack(), error)

    async def _on_outdated(self, news: Outdated, _envelope: Envelope) -> None:
        if self.draining or news.instance != self.instance:
            return
        try:
            raised = self._own_epoch.told(news)
        except RadixMeshError as error:
            self.stop(error)
            return
        if raised:
            log.info("a higher epoch of %s was known: it goes on in epoch %d", self.instance, self.epoch)
            self.epoch_raised()
            await self.beat()

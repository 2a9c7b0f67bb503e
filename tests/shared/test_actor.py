"""The frame of a service, over a real nats-server."""

import asyncio
import json
import logging
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.actor.actor import Actor
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import BusError, ErrorCode, PayloadTooLarge, RadixMeshError, RequestError
from radixmesh.shared.messages import (
    Admit,
    Cancel,
    Claim,
    KvEvents,
    Message,
    OpenText,
    Presence,
    Refused,
    RequestFailed,
    State,
    StepReport,
    Submit,
    WhoIsThere,
    Work,
    pack,
)
from radixmesh.shared.presence.epochs import SETTLED, now_epoch
from radixmesh.shared.presence.view import MISSED_BEATS, until_beat
from radixmesh.shared.telemetry import JsonFormatter
from tests.support import NatsServer, until


class Echo(Actor):
    """Answers claims; breaks on requests whose id says so."""

    service = "echo"

    async def setup(self) -> None:
        self.seen: list[str] = []
        self.on(Claim, lambda claim, envelope: self.reply(envelope, Refused(reason=claim.replica_id)))
        self.on(OpenText, self._open)
        await self.listen("echo.inbox")

    def _open(self, message: OpenText, _envelope: Envelope) -> None:
        if message.request_id == "bug":
            raise ZeroDivisionError("a secret detail")
        if message.request_id == "bad":
            raise RequestError(ErrorCode.INVALID_REQUEST, "no such thing", param="prompt")
        self.seen.append(message.request_id)


def open_text(request_id: str) -> OpenText:
    return OpenText(
        request_id=request_id, attempt=2, gateway_id="gw", prompt_tail=[], prompt_tokens=0, choices=[], time_left=0
    )


def requests_of(request_id: str) -> dict[type[Message], Message]:
    """One of each message that asks for new work."""
    head = {"request_id": request_id, "gateway_id": "gw"}
    admit = {"detokenizer_id": "d", "replica_epoch": 1, "prompt_ids": [1], "work": Work(), "choices": []}
    times = {"time_left": 60.0}
    return {
        Admit: Admit.model_validate({**head, **admit, **times, "attempt": 0}),
        Submit: Submit.model_validate({**head, **times, "model": "m"}),
    }


class Running:
    """An actor in the background of a test, and a client beside it."""

    def __init__(self, actor: Actor, settings: ServiceSettings) -> None:
        self.actor = actor
        self.settings = settings

    async def __aenter__(self) -> "Running":
        self.client = await Bus.connect(self.settings, "client")
        self.presence: list[Presence] = []
        self.inbox: list[object] = []
        await self.client.subscribe(
            self.actor.subjects.presence(),
            lambda envelope: self.presence.append(envelope.unpack()),  # type: ignore[arg-type]
        )
        await self.client.subscribe(
            self.actor.subjects.gateway_inbox("gw"), lambda envelope: self.inbox.append(envelope.unpack())
        )
        await self.client.flush()
        self.task = asyncio.create_task(self.actor.run())
        await until(lambda: any(beat.state is State.READY for beat in self.presence) or self.task.done())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.actor.stop()
        await self.task
        await self.client.close()


async def test_life_is_told_by_presence(settings: ServiceSettings) -> None:
    async with Running(Echo(settings), settings) as running:
        pass
    states = [beat.state for beat in running.presence]
    assert states[-1] is State.GONE
    assert State.READY in states


async def test_it_answers_when_asked_who_is_there(settings: ServiceSettings) -> None:
    async with Running(Echo(settings), settings) as running:
        before = len(running.presence)
        await running.client.publish(running.actor.subjects.who, WhoIsThere())
        await until(lambda: len(running.presence) > before)


def in_the_name_of(settings: ServiceSettings, epoch: int, state: State = State.READY) -> Presence:
    return Presence(service="echo", instance=settings.instance, epoch=epoch, state=state, interval=0.2)


async def hears_of(running: "Running", actor: Actor, beat: Presence) -> None:
    """`actor` takes in `beat`; it hears its own kind."""
    await running.client.publish(actor.subjects.presence(beat.service), beat)


AHEAD = 7200 * 10**6
"""Microseconds."""


async def test_its_epoch_is_above_that_of_one_that_had_its_name(settings: ServiceSettings) -> None:
    """The clock was set back since; an actor that remembers tells."""
    named = settings.model_copy(update={"instance": "echo-0"})
    rememberer = Echo(settings)
    async with Running(rememberer, settings) as running:
        past = now_epoch() + AHEAD
        for state in (State.READY, State.GONE):
            await hears_of(running, rememberer, in_the_name_of(named, past, state))
        await running.client.flush()
        reborn = Echo(named)
        async with Running(reborn, named):
            await until(lambda: rememberer.members.alive("echo-0", reborn.epoch))
            assert reborn.epoch > past


async def test_a_newcomer_whose_name_is_taken_ends_and_says_why(settings: ServiceSettings) -> None:
    """Its clock is ahead, so the others take it for the successor at first; the older one takes its place again."""
    named = settings.model_copy(update={"instance": "echo-0"})
    first, witness = Echo(named), Echo(settings)
    async with Running(first, named), Running(witness, settings):
        first._own_epoch._since -= SETTLED  # it has been there for long
        second = Echo(named)
        second._own_epoch.value += AHEAD
        async with asyncio.timeout(20):
            with pytest.raises(RadixMeshError, match="another process lives under the name echo-0"):
                await second.run()
        await until(lambda: witness.members.alive("echo-0", first.epoch))
        assert first.epoch > second.epoch
        assert not first.draining


class Watcher(Echo):
    watches = ("scheduler", "model_worker")


async def test_it_hears_those_that_it_watches(settings: ServiceSettings) -> None:
    watcher = Watcher(settings)
    async with Running(watcher, settings) as running:
        for service in ("gateway", "scheduler", "model_worker"):
            beat = Presence(service=service, instance=f"its-{service}", epoch=1, state=State.READY)
            await running.client.publish(watcher.subjects.presence(service), beat)
        await until(lambda: watcher.members.get("its-scheduler") and watcher.members.get("its-model_worker"))
        assert sorted(member.service for member in watcher.members) == ["model_worker", "scheduler"]


@given(st.lists(st.floats(0, 4e9), min_size=1), st.floats(0.05, 60))
def test_no_jump_of_the_clock_makes_a_pause_longer(looks: list[float], interval: float) -> None:
    assert all(0 < until_beat(now, interval, "host-a") <= interval for now in looks)


@given(now=st.floats(0, 4e9), interval=st.floats(0.05, 60), later=st.floats(0, 100))
def test_beats_of_one_host_come_together(now: float, interval: float, later: float) -> None:
    """Whoever waits for the next beat of a host waits for the same moments, one per interval."""
    pause = until_beat(now, interval, "host-a")
    assert 0 < pause <= interval
    at, then = now + pause, now + later + until_beat(now + later, interval, "host-a")
    beats = (then - at) / interval
    assert abs(beats - round(beats)) < 1e-3


def test_hosts_beat_at_different_times() -> None:
    assert len({round(until_beat(0.0, 2.0, f"host-{number}"), 2) for number in range(20)}) > 10


async def test_it_is_seen_by_the_micro_service_protocol(settings: ServiceSettings) -> None:
    async with Running(Echo(settings), settings) as running:
        answer = await running.client.client.request("$SRV.PING.radixmesh-echo", b"", timeout=5)
    assert json.loads(answer.data)["metadata"]["instance"] == running.actor.instance


async def test_request_and_reply(settings: ServiceSettings) -> None:
    async with Running(Echo(settings), settings) as running:
        answer = await running.client.request("echo.inbox", Claim(scheduler_id="s", replica_id="r", epoch=1), timeout=5)
        assert answer == Refused(reason="r")
        with pytest.raises(BusError, match="nobody answers Claim"):
            await running.client.request("nobody.there", Claim(scheduler_id="s", replica_id="r", epoch=1), timeout=5)


async def test_a_failing_request_fails_alone(settings: ServiceSettings) -> None:
    echo = Echo(settings)
    async with Running(echo, settings) as running:
        for payload in (b"garbage", pack(Refused(reason="nobody handles this"))):
            await running.client.client.publish("echo.inbox", payload)
        for request_id in ("one", "bug", "bad", "two"):
            await running.client.publish("echo.inbox", open_text(request_id))
        await until(lambda: echo.seen == ["one", "two"] and len(running.inbox) == 2)
    bug, bad = running.inbox
    assert isinstance(bug, RequestFailed)
    assert isinstance(bad, RequestFailed)
    assert (bug.code, bug.attempt, bug.service) == (ErrorCode.INTERNAL, 2, "echo")
    assert "secret" not in bug.message
    assert (bad.code, bad.message, bad.param) == (ErrorCode.INVALID_REQUEST, "no such thing", "prompt")


async def test_a_full_mailbox_refuses_by_name(nats_url: str, namespace: str) -> None:
    settings = ServiceSettings(nats_url=nats_url, namespace=namespace, mailbox_size=1)

    class Slow(Echo):
        async def setup(self) -> None:
            await super().setup()
            self.go = asyncio.Event()
            self.on(Submit, lambda _message, _envelope: self.go.wait())  # type: ignore[arg-type, return-value]

    slow = Slow(settings)
    async with Running(slow, settings) as running:
        for i in range(50):
            await running.client.publish("echo.inbox", requests_of(str(i))[Submit])
        await until(lambda: running.inbox)
        slow.go.set()
    assert {item.code for item in running.inbox if isinstance(item, RequestFailed)} == {ErrorCode.QUEUE_FULL}


@pytest.mark.parametrize("refused", [Admit, Submit])
async def test_control_traffic_passes_requests_and_is_not_dropped_for_them(
    nats_url: str, namespace: str, refused: type[Message]
) -> None:
    """One request is in work, one waits, 199 are refused; reports, claims, cancels and presence all come through."""
    settings = ServiceSettings(nats_url=nats_url, namespace=namespace, mailbox_size=1)
    order: list[str] = []

    class Busy(Echo):
        async def setup(self) -> None:
            await super().setup()
            self.go = asyncio.Event()
            self.on(refused, self._work)
            for kind in (StepReport, Cancel, KvEvents):
                self.on(kind, lambda message, _: order.append(message.TAG))

        async def _work(self, _message: Message, _envelope: Envelope) -> None:
            order.append("request")
            await self.go.wait()

    busy = Busy(settings)
    async with Running(busy, settings) as running:
        await running.client.publish("echo.inbox", requests_of("first")[refused])
        await until(lambda: order)
        for number in range(50):
            for choice in range(4):
                await running.client.publish("echo.inbox", requests_of(f"{number}-{choice}")[refused])
            await running.client.publish("echo.inbox", StepReport(epoch=1, seq=number))
        everything = Cancel(request_ids=["0"], choices=[-1], attempts=[0])  # type: ignore[arg-type]
        await running.client.publish("echo.inbox", everything)
        await running.client.publish("echo.inbox", KvEvents(replica_id="r", epoch=1, seq=0, block_size=4))
        there = Presence(service="scheduler", instance="s", epoch=1, state=State.READY)
        await running.client.publish(busy.subjects.presence("scheduler"), there)
        claim = asyncio.ensure_future(
            running.client.request("echo.inbox", Claim(scheduler_id="s", replica_id="r", epoch=1), timeout=20)
        )
        await until(lambda: len(running.inbox) == 199)
        assert order == ["request"]
        busy.go.set()
        assert await claim == Refused(reason="r")
        await until(lambda: len(order) == 54)
        assert busy.members.get("s") is not None
    assert order == ["request", *["StepReport"] * 50, "Cancel", "KvEvents", "request"]
    assert {item.code for item in running.inbox if isinstance(item, RequestFailed)} == {ErrorCode.QUEUE_FULL}


async def test_control_traffic_that_is_not_read_yet_passes_requests_that_are(settings: ServiceSettings) -> None:
    """A backlog of requests, each worked on without a pause, does not keep the service from reading on."""
    order: list[str] = []

    class Busy(Echo):
        async def setup(self) -> None:
            await super().setup()
            self.on(Submit, self._work)
            self.on(StepReport, lambda _message, _envelope: order.append("report"))

        def _work(self, _message: Submit, _envelope: Envelope) -> None:
            order.append("request")
            if len(order) == 1:
                running.client.client._transport.writelines([report])  # at once, whatever the loop does
            time.sleep(0.001)

    async with Running(Busy(settings), settings) as running:
        data = pack(StepReport(epoch=1, seq=0))
        report = b"PUB echo.inbox %d\r\n%s\r\n" % (len(data), data)
        for number in range(500):
            await running.client.publish("echo.inbox", requests_of(str(number))[Submit])
        await until(lambda: len(order) == 501)
    assert order.index("report") < 400


async def test_a_task_that_lost_its_cancel_does_not_keep_a_service_from_ending(settings: ServiceSettings) -> None:
    class Waiting(Echo):
        async def setup(self) -> None:
            await super().setup()
            self.answer = asyncio.get_running_loop().create_future()
            self.spawn(self._wait())

        async def _wait(self) -> None:
            await asyncio.wait_for(self.answer, 60)
            await asyncio.Event().wait()

        async def beat(self) -> None:
            await super().beat()
            if self._state is State.GONE:  # the answer comes when the task is about to be cancelled
                self.answer.set_result(None)

    async with asyncio.timeout(30):
        async with Running(Waiting(settings), settings):
            pass


async def test_it_lives_through_a_restart_of_the_server(namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    server = NatsServer()
    server.start()
    settings = ServiceSettings(nats_url=server.url, namespace=namespace, heartbeat_interval=0.2)
    try:
        async with Running(Echo(settings), settings) as running:
            server.stop()
            await until(lambda: not running.client.connected and not running.actor.bus.connected)
            server.start()
            await until(lambda: running.client.connected and running.actor.bus.connected)
            await running.actor.bus.flush()  # connected means sent; now the server knows its subscriptions again
            answer = await running.client.request(
                "echo.inbox", Claim(scheduler_id="s", replica_id="r", epoch=1), timeout=5
            )
            assert answer == Refused(reason="r")
    finally:
        server.stop()


async def test_while_the_server_hangs_nobody_is_dead(namespace: str) -> None:
    """It is stopped for three times what a member may be silent, and goes on with the connections that it had."""
    server = NatsServer()
    server.start()
    settings = ServiceSettings(nats_url=server.url, namespace=namespace, heartbeat_interval=0.3)
    try:
        async with Running(Echo(settings), settings) as running:
            actor, told = running.actor, list[tuple[Presence | None, Presence | None]]()
            await until(lambda: actor.members.get(actor.instance))
            actor.members.on_change.append(lambda before, now: told.append((before, now)))
            reconnects = 0

            async def reconnected() -> None:
                nonlocal reconnects
                reconnects += 1

            actor.bus.on_reconnect.append(reconnected)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                await until(lambda: not actor.bus.connected)
                await until(lambda: time.monotonic() - began > 3 * MISSED_BEATS * settings.heartbeat_interval)
                assert not actor.bus.connected
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await until(lambda: actor.bus.connected and running.client.connected)
            claim = Claim(scheduler_id="s", replica_id="r", epoch=1)
            assert await running.client.request("echo.inbox", claim, timeout=20) == Refused(reason="r")
            beats = len(running.presence)
            await until(lambda: len(running.presence) > beats + 1)
            assert not told
            assert reconnects == 0
    finally:
        server.stop()


async def test_an_answer_too_large_for_the_bus_is_a_refusal_and_no_silence(settings: ServiceSettings) -> None:
    class Large(Echo):
        async def setup(self) -> None:
            await super().setup()
            answer = Refused(reason="a" * (self.bus.max_payload + 1))
            self.on(Claim, lambda _claim, envelope: self.reply(envelope, answer))

    async with Running(Large(settings), settings) as running:
        claim = Claim(scheduler_id="s", replica_id="r", epoch=1)
        answer = await running.client.request("echo.inbox", claim, timeout=20)
    assert isinstance(answer, Refused)
    assert "over the bus's limit" in answer.reason


@pytest.mark.parametrize("headers", [None, {"traceparent": "0" * 55, "baggage": "ä" * 200}])
async def test_payloads_are_measured_before_they_are_sent(
    settings: ServiceSettings, headers: dict[str, str] | None
) -> None:
    """What fits to the byte arrives; one byte more is refused here, by the server it would cost us the connection."""
    bus = await Bus.connect(settings, "client")
    arrived: list[Envelope] = []
    await bus.subscribe(settings.namespace, arrived.append)
    fits = Refused(reason="a" * (bus.max_payload - 200_000))
    room = bus.max_payload - len(pack(fits))
    if headers:
        room -= len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    fits = Refused(reason=fits.reason + "a" * room)
    await bus.publish(settings.namespace, fits, headers)
    await until(lambda: arrived)
    with pytest.raises(PayloadTooLarge, match=r"Refused packs to .* bytes, over the bus's limit"):
        await bus.publish(settings.namespace, Refused(reason=fits.reason + "a"), headers)
    await bus.flush()
    assert bus.connected
    await bus.close()


async def test_questions_are_measured_like_all_else(settings: ServiceSettings) -> None:
    bus = await Bus.connect(settings, "client")
    large = Claim(scheduler_id="s" * bus.max_payload, replica_id="r", epoch=1)
    with pytest.raises(PayloadTooLarge, match=r"Claim packs to .* bytes, over the bus's limit"):
        await bus.request("x", large, timeout=5)
    await bus.close()
    with pytest.raises(BusError, match="cannot publish Claim"):
        await bus.request("x", Claim(scheduler_id="s", replica_id="r", epoch=1), timeout=5)


async def test_wrong_credentials_and_absent_servers_are_named(namespace: str) -> None:
    server = NatsServer("--auth", "right")
    server.start()
    try:
        with pytest.raises(BusError, match=r"(?i)authorization"):
            await Bus.connect(ServiceSettings(nats_url=server.url, nats_token="wrong"), "client")  # type: ignore[arg-type]
        bus = await Bus.connect(ServiceSettings(nats_url=server.url, nats_token="right"), "client")  # type: ignore[arg-type]
        assert bus.connected
        await bus.close()
    finally:
        server.stop()
    with pytest.raises(BusError, match="cannot connect to"):
        await Bus.connect(ServiceSettings(nats_url=server.url), "client", timeout=0.5)


async def test_setup_errors_end_the_run(settings: ServiceSettings) -> None:
    class Broken(Echo):
        async def setup(self) -> None:
            raise RequestError(ErrorCode.INTERNAL, "no weights")

    with pytest.raises(RequestError, match="no weights"):
        await Broken(settings).run()


def test_json_logs_are_one_object_a_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "hello %s\nthere", ("you",), None)
    record.request_id = "r"
    entry = json.loads(JsonFormatter("echo", "e1").format(record))
    assert entry["message"] == "hello you\nthere"
    assert (entry["level"], entry["service"], entry["request_id"]) == ("warning", "echo", "r")

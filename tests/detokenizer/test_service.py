"""A real detokenizer on a real bus, between a scripted tokenizer, worker and gateway."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.service import Detokenizer
from radixmesh.shared import telemetry
from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.messages import Cancel, Choice, Finish, Message, OpenText, Presence, State, TextBatch, TokenBatch
from radixmesh.shared.model_files.tokenizer import reader
from radixmesh.shared.subjects import Subjects
from radixmesh.shared.telemetry import Attr
from tests.support import starter, until
from tests.tokenizer.small_tokenizers import byte_level, save_model

R1 = "1" * 32
Start = Callable[..., Awaitable[Detokenizer]]


class Neighbours:
    """Everyone else on the bus: what they got, by subject."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        self.bus = bus
        self.subjects = Subjects(namespace)
        self.got: dict[str, list[Message]] = {}
        self.presence: dict[str, Presence] = {}

    async def listen(self, *subjects: str) -> None:
        for subject in (*subjects, self.subjects.presence()):
            await self.bus.subscribe(subject, self._receive)
        await self.bus.flush()

    def _receive(self, envelope: Envelope) -> None:
        message = envelope.unpack()
        if isinstance(message, Presence):
            self.presence[message.instance] = message
        else:
            self.got.setdefault(envelope.subject, []).append(message)

    def text(self, gateway_id: str) -> str:
        batches = self.got.get(self.subjects.gateway_inbox(gateway_id), [])
        return "".join(text for batch in batches if isinstance(batch, TextBatch) for text in batch.texts)


@pytest.fixture
async def neighbours(settings: ServiceSettings) -> AsyncIterator[Neighbours]:
    bus = await Bus.connect(settings, "neighbours")
    found = Neighbours(bus, settings.namespace)
    await found.listen(found.subjects.gateway_inbox("gw"), found.subjects.replica_inbox("rep"))
    yield found
    await bus.close()


@pytest.fixture
async def start(settings: ServiceSettings, tmp_path: Path) -> AsyncIterator[Start]:
    directory = save_model(tmp_path / "small", byte_level(), eos_token="<|im_end|>")
    async with starter(settings, directory, lambda values: Detokenizer(DetokenizerSettings(**values))) as begin:
        yield begin


async def ready(neighbours: Neighbours, instance: str) -> None:
    def is_ready() -> bool:
        beat = neighbours.presence.get(instance)
        return beat is not None and beat.state is State.READY

    await until(is_ready)


def opened(**fields: Any) -> OpenText:
    defaults = {
        "request_id": R1,
        "attempt": 0,
        "gateway_id": "gw",
        "prompt_tail": byte_level().encode("Say: ").ids,
        "prompt_tokens": 5,
        "choices": [Choice(index=0)],
        "time_left": 60,
    }
    return OpenText.model_validate({**defaults, **fields})


def row(first: int, tokens: list[int], finish: Finish = Finish.RUNNING, **columns: Any) -> TokenBatch:
    defaults = {
        "replica_id": "rep",
        "epoch": 1,
        "request_ids": [R1],
        "choices": [0],
        "attempts": [0],
        "first_index": [first],
        "counts": [len(tokens)],
        "tokens": tokens,
        "finish": [finish],
        "cached_tokens": [0],
    }
    return TokenBatch.model_validate({**defaults, **columns})


async def test_tokens_become_text(neighbours: Neighbours, start: Start, tmp_path: Path) -> None:
    await start("d1")
    await ready(neighbours, "d1")
    assert neighbours.presence["d1"].model == "small"
    assert neighbours.presence["d1"].attributes["vocabulary"] == reader.read(tmp_path / "small").fingerprint
    inbox, ids = neighbours.subjects.detokenizer_inbox("d1"), byte_level().encode("Il était 🙂 une fois").ids
    await neighbours.bus.publish(inbox, opened())
    for position, token in enumerate(ids):
        await neighbours.bus.publish(inbox, row(position, [token]))
    await neighbours.bus.publish(inbox, row(len(ids), [2], Finish.STOP))
    await until(lambda: len(neighbours.got.get(neighbours.subjects.gateway_inbox("gw"), [])) == len(ids) + 1)
    assert neighbours.text("gw") == "Il était 🙂 une fois"


async def test_stop_string_cancels_at_the_replica(neighbours: Neighbours, start: Start) -> None:
    await start("d1")
    await ready(neighbours, "d1")
    inbox, ids = neighbours.subjects.detokenizer_inbox("d1"), byte_level().encode("one two three").ids
    await neighbours.bus.publish(inbox, opened(stop=["two"]))
    await neighbours.bus.publish(inbox, row(0, ids))
    replica = neighbours.subjects.replica_inbox("rep")
    await until(lambda: neighbours.got.get(replica))
    assert neighbours.got[replica] == [Cancel.model_validate({"request_ids": [R1], "choices": [0], "attempts": [0]})]
    await until(lambda: neighbours.text("gw"))
    assert neighbours.text("gw") == "one "


async def test_two_detokenizers_and_a_move_between_them(neighbours: Neighbours, start: Start) -> None:
    """The second takes over where the first was killed; what was held back comes out once."""
    first = await start("d1")
    await start("d2")
    await ready(neighbours, "d1")
    await ready(neighbours, "d2")
    ids = byte_level().encode("half a STOPPED word 🙂").ids
    await neighbours.bus.publish(neighbours.subjects.detokenizer_inbox("d1"), opened(stop=["STOPS"]))
    await neighbours.bus.publish(neighbours.subjects.detokenizer_inbox("d1"), row(0, ids[:10]))
    gateway = neighbours.subjects.gateway_inbox("gw")
    await until(lambda: neighbours.got.get(gateway))
    (batch,) = neighbours.got[gateway]
    assert isinstance(batch, TextBatch)
    first.stop(RuntimeError("killed"))
    await until(lambda: neighbours.presence["d1"].state is State.GONE)
    inbox = neighbours.subjects.detokenizer_inbox("d2")
    again = opened(stop=["STOPS"], attempt=1, choices=[Choice(index=0, resumed=batch.tokens)])
    await neighbours.bus.publish(inbox, again)
    await neighbours.bus.publish(inbox, row(10, ids[10:], Finish.LENGTH, attempts=[1]))
    await until(lambda: len(neighbours.got[gateway]) == 2)
    assert neighbours.text("gw") == "half a STOPPED word 🙂"


async def test_bad_batches_and_cancels_harm_nobody(neighbours: Neighbours, start: Start) -> None:
    unit = await start("d1")
    await ready(neighbours, "d1")
    inbox, ids = neighbours.subjects.detokenizer_inbox("d1"), byte_level().encode("fine").ids
    other = "2" * 32
    await neighbours.bus.publish(inbox, opened())
    await neighbours.bus.publish(inbox, opened(request_id=other))
    await neighbours.bus.publish(inbox, row(0, ids, counts=[99]))
    await neighbours.bus.client.publish(inbox, b"\x00rubbish")
    cancel = Cancel.model_validate({"request_ids": [other], "choices": [-1], "attempts": [0]})
    await neighbours.bus.publish(neighbours.subjects.cancel, cancel)
    await neighbours.bus.publish(inbox, row(0, ids, Finish.LENGTH))
    await until(lambda: neighbours.text("gw"))
    assert neighbours.text("gw") == "fine"
    await until(lambda: unit.presence_attributes()["open_requests"] == 0)


async def test_drain_lets_open_requests_end(neighbours: Neighbours, start: Start) -> None:
    unit = await start("d1", drain_timeout=20.0)
    await ready(neighbours, "d1")
    inbox, ids = neighbours.subjects.detokenizer_inbox("d1"), byte_level().encode("to the end").ids
    await neighbours.bus.publish(inbox, opened())
    await neighbours.bus.publish(inbox, row(0, ids[:2]))
    await until(lambda: neighbours.text("gw"))
    unit.stop()
    await until(lambda: neighbours.presence["d1"].state is State.DRAINING)
    await neighbours.bus.publish(inbox, row(2, ids[2:], Finish.LENGTH))
    await until(lambda: neighbours.presence["d1"].state is State.GONE)
    assert neighbours.text("gw") == "to the end"


async def test_a_missing_model_is_said(settings: ServiceSettings) -> None:
    base = settings.model_dump(include={"nats_url", "namespace"})
    unit = Detokenizer(DetokenizerSettings(**base, model="/no/such/place"))
    with pytest.raises(ModelLoadError, match="/no/such/place"):
        await unit.run()


async def test_a_span_per_choice(neighbours: Neighbours, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "enabled", True)
    monkeypatch.setattr(trace, "get_tracer", lambda name: provider.get_tracer(name))
    await start("d1")
    await ready(neighbours, "d1")
    inbox, ids = neighbours.subjects.detokenizer_inbox("d1"), byte_level().encode("traced").ids
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    await neighbours.bus.publish(inbox, opened())
    await neighbours.bus.publish(inbox, row(0, ids[:1], traceparents=[parent]))
    await neighbours.bus.publish(inbox, row(1, ids[1:], Finish.LENGTH, traceparents=[""]))
    await until(exporter.get_finished_spans)
    (span,) = exporter.get_finished_spans()
    assert span.name == telemetry.SPAN_DETOKENIZE
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
    assert span.attributes is not None
    assert span.attributes[Attr.OUTPUT_TOKENS] == len(ids)
    assert span.attributes[Attr.FINISH_REASONS] == ("length",)
    assert span.attributes[Attr.REQUEST_ID] == R1

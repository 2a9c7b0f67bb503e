"""Everyone around the tokenizers, scripted."""

from typing import Any

from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.messages import Message, Presence, RequestFailed, State, Submit
from radixmesh.shared.subjects import Subjects
from tests.support import until

SIZES = {"max_model_len": 200, "vocab_size": 401}


def rid(number: int) -> str:
    return f"{number:032x}"


class Mesh:
    """Everyone but the tokenizers: heartbeats of the others, and what they all got, in order."""

    def __init__(self, bus: Bus, namespace: str) -> None:
        self.bus = bus
        self.subjects = Subjects(namespace)
        self.got: list[tuple[str, Message]] = []
        self.headers: dict[str, dict[str, str]] = {}
        self.presence: dict[str, Presence] = {}
        self.members: dict[str, Presence] = {}

    def _receive(self, envelope: Envelope) -> None:
        message = envelope.unpack()
        if isinstance(message, Presence):
            self.presence[message.instance] = message
            return
        self.got.append((envelope.subject.removeprefix(self.subjects.namespace + "."), message))
        self.headers[message.TAG] = dict(envelope.headers or {})

    async def listen(self) -> None:
        # One subscription, so that the order of arrival is the order on the tokenizer's connection.
        await self.bus.subscribe(f"{self.subjects.namespace}.*.*.*", self._receive)
        await self.bus.subscribe(self.subjects.presence("tokenizer"), self._receive)
        await self.bus.flush()

    async def beat(self, service: str, instance: str, state: State = State.READY, **fields: Any) -> None:
        known = {"service": service, "instance": instance, "epoch": 1, "state": state, "model": "small", "interval": 60}
        beat = self.members[instance] = Presence.model_validate({**known, **fields})
        await self.bus.publish(self.subjects.presence(service), beat)

    async def submit(self, request_id: str, **fields: Any) -> None:
        known = {"request_id": request_id, "gateway_id": "gw", "model": "small"}
        message = Submit.model_validate({**known, "time_left": 60, **fields})
        headers = fields.get("headers")
        await self.bus.publish(self.subjects.submit("small"), message, headers)

    def of(self, request_id: str) -> list[tuple[str, Message]]:
        return [item for item in self.got if getattr(item[1], "request_id", None) == request_id]

    async def answer(self, request_id: str) -> Message:
        """The gateway's message about the request."""

        def found() -> list[Message]:
            return [message for subject, message in self.of(request_id) if subject == "gateway.gw.inbox"]

        await until(found)
        return found()[-1]

    async def refusal(self, request_id: str) -> RequestFailed:
        answer = await self.answer(request_id)
        assert isinstance(answer, RequestFailed)
        assert answer.service == "tokenizer"
        return answer

    async def ready(self, *instances: str) -> None:
        def all_ready() -> bool:
            beats = [self.presence.get(instance) for instance in instances]
            return all(beat is not None and beat.state is State.READY for beat in beats)

        await until(all_ready, 90)

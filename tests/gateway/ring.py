"""A tokenizer, a scheduler and a detokenizer in one, that speak the real messages over a real bus by a script.

A prompt's text says what happens to it. `echo:N` gives N words; see `Ring._play` for the rest.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import (
    Cancel,
    Choice,
    Finish,
    Presence,
    RequestFailed,
    Routed,
    State,
    Submit,
    TextBatch,
)
from radixmesh.shared.subjects import TOKENIZER_GROUP, Subjects

MODEL = "toy/model"
PROMPT_TOKENS = 7
CACHED_TOKENS = 4


def word(choice: int, index: int) -> str:
    """The text of one token."""
    return f"w{choice}.{index} "


def words(count: int, choice: int = 0) -> str:
    return "".join(word(choice, index) for index in range(count))


def token(choice: int, index: int) -> int:
    return 1000 * choice + index


class Member:
    """One member's presence."""

    def __init__(self, service: str, instance: str, **attributes: Any) -> None:
        self.service = service
        self.instance = instance
        self.epoch = time.time_ns() // 1000
        self.state = State.READY
        self.detail = ""
        self.attributes = attributes

    def beat(self) -> Presence:
        return Presence(
            service=self.service,
            instance=self.instance,
            epoch=self.epoch,
            state=self.state,
            detail=self.detail,
            model=MODEL,
            interval=0.2,
            attributes=self.attributes,
        )


class Ring:
    """Plays everyone but the gateway."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._subjects = Subjects(settings.namespace)
        self.bus: Bus
        self.members = [
            Member("tokenizer", "tok", max_model_len=512, vocab_size=300, chat_template=True),
            Member("detokenizer", "detok"),
            Member("scheduler", "replica-0", max_model_len=512, vocab_size=300, running=1, waiting=2, free_pages=9),
        ]
        self.submits: list[Submit] = []
        self.headers: list[Any] = []
        self.cancels: list[tuple[str, int]] = []
        """(request_id, attempt) of every Cancel seen."""
        self.reason = "only"
        self.release = asyncio.Event()
        self._tries: dict[str, int] = defaultdict(int)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def scheduler(self) -> Member:
        return self.members[2]

    async def start(self) -> None:
        self.bus = await Bus.connect(self._settings, "ring")
        await self.bus.subscribe(self._subjects.submit(MODEL), self._submitted, queue=TOKENIZER_GROUP)
        await self.bus.subscribe(self._subjects.cancel, self._cancelled)
        await self.bus.subscribe(self._subjects.who, lambda _: self._spawn(self.beat()))
        self._spawn(self._heartbeat())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bus.close()

    async def beat(self) -> None:
        for member in self.members:
            await self.bus.publish(self._subjects.presence(member.service), member.beat())

    async def kill_replica(self) -> None:
        """The scheduler dies and is back at once, in a new epoch."""
        old = self.scheduler.beat()
        await self.bus.publish(self._subjects.presence("scheduler"), old.model_copy(update={"state": State.GONE}))
        self.scheduler.epoch += 1
        await self.beat()

    async def until(self, what: Callable[[], bool], timeout: float = 10.0) -> None:
        """Waits for a condition."""
        async with asyncio.timeout(timeout):
            while not what():  # noqa: ASYNC110  conditions of many kinds
                await asyncio.sleep(0.01)

    # -- inside --

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _heartbeat(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(0.2)

    def _cancelled(self, envelope: Envelope) -> None:
        message = envelope.unpack()
        assert isinstance(message, Cancel)
        self.cancels += zip(message.request_ids, message.attempts.tolist(), strict=True)

    def _submitted(self, envelope: Envelope) -> None:
        message = envelope.unpack()
        assert isinstance(message, Submit)
        self.submits.append(message)
        self.headers.append(envelope.headers)
        self._spawn(self._run(message))

    async def _run(self, submit: Submit) -> None:
        text = submit.text
        if text is None:
            text = submit.messages[-1]["content"] if submit.messages else "echo:3"
        script, _, argument = text.partition(":")
        script_of = {name: getattr(self, f"_play_{name}") for name in _SCRIPTS}
        await script_of.get(script, self._play_echo)(submit, argument)

    async def _routed(self, submit: Submit) -> None:
        message = Routed(
            request_id=submit.request_id,
            attempt=submit.attempt,
            replica_id=self.scheduler.instance,
            replica_epoch=self.scheduler.epoch,
            detokenizer_id="detok",
            detokenizer_epoch=self.members[1].epoch,
            prompt_tokens=PROMPT_TOKENS,
            reason=self.reason,
        )
        await self.bus.publish(self._subjects.gateway_inbox(submit.gateway_id), message)

    async def _say(
        self,
        submit: Submit,
        choice: int,
        first: int,
        count: int,
        finish: Finish = Finish.RUNNING,
        reason: str | int | None = None,
        text: str | None = None,
        reasoning: str = "",
    ) -> None:
        said = "".join(word(choice, index) for index in range(first, first + count)) if text is None else text
        batch = TextBatch(
            detokenizer_id="detok",
            request_ids=[submit.request_id],
            choices=np.array([choice]),
            attempts=np.array([submit.attempt]),
            first_index=np.array([first]),
            counts=np.array([count]),
            tokens=np.array([token(choice, index) for index in range(first, first + count)]),
            texts=[said],
            reasoning=[reasoning] if reasoning else [],
            finish=np.array([finish]),
            stop_reasons=[reason],
            prompt_tokens=np.array([PROMPT_TOKENS]),
            cached_tokens=np.array([CACHED_TOKENS]),
        )
        await self.bus.publish(self._subjects.gateway_inbox(submit.gateway_id), batch)

    async def _fail(self, submit: Submit, code: ErrorCode, **fields: Any) -> None:
        message = RequestFailed(
            request_id=submit.request_id, attempt=submit.attempt, code=code, message=f"told {code}", **fields
        )
        await self.bus.publish(self._subjects.gateway_inbox(submit.gateway_id), message)

    def _choices(self, submit: Submit) -> list[Choice]:
        return submit.choices or [Choice(index=index) for index in range(submit.work.params.n)]

    def _check_resumed(self, submit: Submit) -> None:
        for choice in submit.choices:
            count = len(choice.resumed)
            assert choice.resumed.tolist() == [token(choice.index, index) for index in range(count)]

    # -- the scripts --

    async def _play_echo(self, submit: Submit, argument: str, until: int | None = None) -> None:
        """`echo:N`: N words, one by one over the choices; then the end, by length if max_tokens says so."""
        self._check_resumed(submit)
        count = int(argument) if argument.isdigit() else 3
        limit = submit.work.params.max_tokens
        total = min(count, limit) if limit is not None else count
        finish = Finish.LENGTH if limit is not None and count >= limit else Finish.STOP
        await self._routed(submit)
        at = {choice.index: len(choice.resumed) for choice in self._choices(submit)}
        while any(index < total for index in at.values()):
            for choice, index in at.items():
                if until is not None and index >= until:
                    return
                if index < total:
                    last = index == total - 1
                    await self._say(submit, choice, index, 1, finish if last else Finish.RUNNING)
                    at[choice] = index + 1

    async def _play_silence(self, submit: Submit, argument: str) -> None:
        """`silence:N`: N words, then nothing."""
        await self._play_echo(submit, "1000", until=int(argument or 0))

    async def _play_held(self, submit: Submit, argument: str) -> None:
        """`held:N`: N words, and two more when `release` is set."""
        await self._play_echo(submit, "1000", until=int(argument))
        await self.release.wait()
        for index, finish in ((int(argument), Finish.RUNNING), (int(argument) + 1, Finish.STOP)):
            await self._say(submit, 0, index, 1, finish)

    async def _play_unrouted(self, submit: Submit, _argument: str) -> None:
        """No tokenizer takes the first two attempts."""
        if submit.attempt >= 2:
            await self._play_echo(submit, "5")

    async def _play_fail(self, submit: Submit, argument: str) -> None:
        """`fail:CODE`: refused at once."""
        extra = {"retry_after": 7.0} if argument == ErrorCode.QUEUE_FULL else {}
        await self._fail(submit, ErrorCode(argument), param="prompt", **extra)

    async def _play_failmid(self, submit: Submit, argument: str) -> None:
        """`failmid:CODE`: two words, then failed."""
        await self._play_echo(submit, "1000", until=2)
        await self._fail(submit, ErrorCode(argument))

    async def _play_notready(self, submit: Submit, _argument: str) -> None:
        """The tokenizer learns of the replica later than the gateway."""
        if submit.attempt == 0:
            await self._fail(submit, ErrorCode.NOT_READY)
        else:
            await self._play_echo(submit, "4")

    async def _play_lost(self, submit: Submit, argument: str) -> None:
        """`lost:N`: each of the first N attempts brings two words, and then REPLICA_LOST."""
        if submit.attempt >= int(argument):
            await self._play_echo(submit, "12")
            return
        await self._play_echo(submit, "12", until=2 * submit.attempt + 2)
        await self._fail(submit, ErrorCode.REPLICA_LOST)

    async def _play_gap(self, submit: Submit, _argument: str) -> None:
        """Word 3 of the first attempt is lost, word 1 comes twice."""
        if submit.attempt > 0:
            await self._play_echo(submit, "8")
            return
        await self._routed(submit)
        for index in (0, 1, 1, 2, 4, 5):
            await self._say(submit, 0, index, 1)

    async def _play_death(self, submit: Submit, _argument: str) -> None:
        """The replica dies after three words, and its last words come late."""
        if submit.attempt > 0:
            await self._play_echo(submit, "9")
            return
        await self._play_echo(submit, "9", until=3)
        await self.kill_replica()
        await self._say(submit, 0, 3, 1)

    async def _play_flood(self, submit: Submit, argument: str) -> None:
        """`flood:N`: N long words, for ever faster than a client that does not read."""
        await self._routed(submit)
        for index in range(int(argument)):
            await self._say(submit, 0, index, 1, text="x" * 65536)
            await asyncio.sleep(0)

    async def _play_stop(self, submit: Submit, _argument: str) -> None:
        await self._routed(submit)
        await self._say(submit, 0, 0, 2)
        await self._say(submit, 0, 2, 1, Finish.STOP, reason="END", text="")

    async def _play_think(self, submit: Submit, _argument: str) -> None:
        """Thoughts, their end together with the first word, and another word. The first attempt dies on the way."""
        self._check_resumed(submit)
        await self._routed(submit)
        for choice in self._choices(submit):
            index = choice.index
            if len(choice.resumed) == 0:
                await self._say(submit, index, 0, 1, text="")
                await self._say(submit, index, 1, 1, text="", reasoning="hm, ")
            if submit.attempt > 0:
                await self._say(submit, index, 2, 1, text=word(index, 0), reasoning='"so"')
                await self._say(submit, index, 3, 1, Finish.STOP, text=word(index, 1))
        if submit.attempt == 0:
            await self._fail(submit, ErrorCode.REPLICA_LOST)

    async def _play_muse(self, submit: Submit, _argument: str) -> None:
        """Thoughts and no end of them."""
        await self._routed(submit)
        await self._say(submit, 0, 0, 3, Finish.LENGTH, text="", reasoning="hm, hm")

    async def _play_say(self, submit: Submit, argument: str) -> None:
        """`say:TEXT`: that text, character by character."""
        await self._routed(submit)
        for index, character in enumerate(argument):
            await self._say(submit, 0, index, 1, text=character)
        await self._say(submit, 0, len(argument), 1, Finish.STOP, reason=argument, text="")

    async def _play_unicode(self, submit: Submit, _argument: str) -> None:
        """A character in two tokens: the first has no text yet."""
        await self._routed(submit)
        await self._say(submit, 0, 0, 1, text="")
        await self._say(submit, 0, 1, 1, text='é"\\\n 好')
        await self._say(submit, 0, 2, 1, Finish.LENGTH, text="!")


_SCRIPTS = [name.removeprefix("_play_") for name in vars(Ring) if name.startswith("_play_")]

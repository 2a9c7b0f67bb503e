"""Drives a `SchedulerCore` and a `SimWorker`, with plans and reports under way between them."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.scheduler.core import SchedulerCore
from radixmesh.services.scheduler.outgoing import Effect, ToDetokenizer, ToGateway
from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages import (
    Admit,
    Cancel,
    Choice,
    Claimed,
    Finish,
    KvGroup,
    SamplingParams,
    StepPlan,
    StepReport,
    Task,
    Work,
)
from tests.scheduler.simulator import EOS, VOCAB, Row, SimWorker, expected_output

EPOCH = 7


def sizes(
    *,
    page_size: int = 4,
    num_pages: int = 64,
    max_slots: int = 8,
    max_model_len: int = 256,
    max_drafts: int = 0,
    ranks: int = 1,
    loras: int = 0,
    groups: list[KvGroup] | None = None,
) -> Claimed:
    """`groups` if given, else a single one of `num_pages`."""
    return Claimed(
        group_id="g",
        groups=groups or [KvGroup(page_size=page_size, num_pages=num_pages)],
        max_slots=max_slots,
        max_model_len=max_model_len,
        vocab_size=VOCAB,
        eos_token_ids=[EOS],
        max_drafts=max_drafts,
        ranks=ranks,
        prepares={"lora": loras} if loras else {},
    )


def admit_message(
    request_id: str,
    prompt: NDArray[np.int32] | list[int],
    *,
    n: int = 1,
    max_tokens: int | None = 16,
    resumed: list[int] | None = None,
    seed: int = 0,
    attempt: int = 0,
    priority: int = 0,
    salt: str = "",
    time_left: float = 1e12,
    ignore_eos: bool = False,
    epoch: int = EPOCH,
    gateway: str = "gw",
    task: Task = Task.GENERATE,
    lora: str = "",
) -> Admit:
    return Admit(
        request_id=request_id,
        attempt=attempt,
        gateway_id=gateway,
        detokenizer_id="dt",
        replica_epoch=epoch,
        work=Work(
            task=task,
            params=SamplingParams(n=n, max_tokens=max_tokens, seed=seed, ignore_eos=ignore_eos),
            lora=lora,
            cache_salt=salt,
            priority=priority,
        ),
        prompt_ids=np.asarray(prompt, np.int32),
        choices=[Choice(index=i, resumed=np.array(resumed or [], np.int32)) for i in range(n)],
        time_left=time_left,
    )


@dataclass
class Outcome:
    """What a gateway would have seen of one choice."""

    tokens: list[int] = field(default_factory=list)
    finish: Finish = Finish.RUNNING
    cached: list[int] = field(default_factory=list)


class Harness:
    """Core and worker; nothing moves unless told."""

    def __init__(
        self,
        settings: SchedulerSettings | None = None,
        claimed: Claimed | None = None,
        *,
        partial: np.random.Generator | None = None,
        check: bool = True,
    ) -> None:
        self.sizes = claimed or sizes()
        self.settings = settings or SchedulerSettings(warm_min_tokens=1, decode_headroom=0)
        self._partial = partial
        self._claim()
        self.effects: list[Effect] = []
        self.admits: dict[str, Admit] = {}
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        self.cancelled: set[tuple[str, int]] = set()
        self.now = 0.0
        self.steps = 0
        self._check = check

    def _claim(self) -> None:
        self.core = SchedulerCore(self.settings, self.sizes, replica_id="r", epoch=EPOCH)
        self.worker = SimWorker(self.sizes, self._partial)
        self.plans: deque[StepPlan] = deque()
        self.reports: deque[StepReport] = deque()

    # -- moves --

    def admit(self, message: Admit) -> None:
        self.core.admit(message, self.now)
        self.admits[message.request_id] = message

    def cancel(self, request_id: str, choice: int = -1, attempt: int = 0) -> None:
        cancel = Cancel(request_ids=[request_id], choices=np.array([choice]), attempts=np.array([attempt]))
        self.core.cancel(cancel, self.now)
        n = self.admits[request_id].work.params.n
        self.cancelled |= {(request_id, c) for c in range(n) if choice in (-1, c)}

    def die(self) -> None:
        """The worker is lost with all that is under way. What has not ended comes again, to the claim of the next."""
        running = {name: set(choices) for name, choices in self.core.replica.requests.items()}
        self.core.lost("the worker is gone", self.now)
        effects = self.core.take_effects()
        assert all(isinstance(e, ToGateway) and e.message.code is ErrorCode.REPLICA_LOST for e in effects)
        self._claim()
        for request_id, choices in running.items():
            again = self._again(self.admits[request_id], choices)
            if again.choices:
                self.admit(again)

    def _again(self, message: Admit, running: set[int]) -> Admit:
        """The next attempt, as a gateway makes it, with the tokens that it has passed on."""
        choices = []
        for choice in message.choices:
            self._verify(message, choice, whole=choice.index not in running)
            outcome = self.outcomes.get((message.request_id, choice.index), Outcome())
            if choice.index in running and outcome.finish is Finish.RUNNING:
                tokens = np.array(outcome.tokens, np.int32)
                choices.append(Choice(index=choice.index, resumed=np.concatenate([choice.resumed, tokens])))
                outcome.tokens = []
        return message.model_copy(update={"attempt": message.attempt + 1, "choices": choices})

    def pump(self) -> int:
        """Takes everything that the core would send now. Returns how many plans there were."""
        made = 0
        while (message := self.core.next_prepare(self.now)) is not None:
            self.worker.preparations.ask(message)
            self.check()
        while (plan := self.core.next_plan(self.now)) is not None:
            self.plans.append(plan)
            self.check()
            made += 1
        assert len(self.core.in_flight) <= self.settings.pipeline_depth
        self.effects += self.core.take_effects()
        return made

    def work(self) -> bool:
        """The worker runs one plan."""
        if not self.plans:
            return False
        plan = self.plans.popleft()
        before = len(self.worker.rows)
        self.reports.append(self.worker.run(plan))
        for row in self.worker.rows[before:]:
            self._deliver(row)
        self.steps += 1
        return True

    def deliver(self) -> bool:
        """One report reaches the core."""
        if not self.reports:
            return False
        self.core.report(self.reports.popleft(), self.now)
        self.effects += self.core.take_effects()
        self.check()
        return True

    def prepare(self, which: int = 0, rank: int = 0, code: ErrorCode | None = None) -> bool:
        """A rank answers one of the preparations that are asked for, and the answer reaches the core."""
        asked = list(self.worker.preparations.asked)
        if not asked:
            return False
        answer = self.worker.preparations.answer(asked[which % len(asked)], rank, code, EPOCH)
        self.core.prepared(answer, self.now)
        self.effects += self.core.take_effects()
        self.check()
        return True

    def prepare_all(self) -> bool:
        """Every rank answers what is asked for."""
        before = len(self.worker.preparations.asked)
        for which in range(before):
            for rank in range(self.sizes.ranks):
                self.prepare(before - 1 - which, rank)
        return before > 0

    def run(self, limit: int = 100_000) -> None:
        """Until nothing is left to do."""
        for _ in range(limit):
            self.pump()
            if not (self.work() or self.deliver() or self.prepare_all()):
                break
            self.now += 0.001
        self.effects += self.core.take_effects()
        assert self.core.idle, "it hangs"
        self.check()

    def check(self) -> None:
        if self._check:
            assert self.core.check() == []
            assert self.core.replica.preparations.check() == []

    # -- what came of it --

    def _deliver(self, row: Row) -> None:
        outcome = self.outcomes.setdefault((row.request_id, row.choice), Outcome())
        assert outcome.finish is Finish.RUNNING, "tokens after the end"
        assert row.first_index == len(outcome.tokens) + self._resumed(row), "a gap, or a token twice"
        outcome.tokens += row.tokens
        outcome.finish = row.finish
        outcome.cached.append(row.cached)

    def _resumed(self, row: Row) -> int:
        return next(c.resumed.size for c in self.admits[row.request_id].choices if c.index == row.choice)

    def failures(self) -> list[ToGateway]:
        return [effect for effect in self.effects if isinstance(effect, ToGateway)]

    def completions(self) -> list[ToDetokenizer]:
        return [effect for effect in self.effects if isinstance(effect, ToDetokenizer)]

    def verify(self) -> None:
        """Every choice gave what it gives alone, or the beginning of that if it was cancelled or failed."""
        for message in self.admits.values():
            for choice in message.choices:
                self._verify(message, choice, whole=True)

    def _verify(self, message: Admit, choice: Choice, *, whole: bool) -> None:
        """One choice; unless `whole`, it may still be running."""
        key = (message.request_id, choice.index)
        failed = {(effect.message.request_id, effect.message.choice) for effect in self.failures()}
        outcome = self.outcomes.get(key, Outcome())
        wanted, finish = expected_output(
            message.prompt_ids, message.work.params, choice.index, self.core.replica.max_len
        )
        wanted = wanted[choice.resumed.size :]
        if not whole or key in self.cancelled or {key, (message.request_id, -1)} & failed:
            assert outcome.tokens == wanted[: len(outcome.tokens)]
        else:
            assert outcome.tokens == wanted
            assert outcome.finish is finish


def decodes(plan: StepPlan) -> list[int]:
    """Slots whose spans go on behind the prompt: those of one token, which the tests' prompts never are cut down to."""
    return [span.slot for span in plan.spans() if span.count == 1]


def prompt(seed: int, length: int) -> NDArray[np.int32]:
    """Tokens that differ by seed."""
    return np.random.default_rng(seed).integers(1, VOCAB, length).astype(np.int32)


def options(**changes: object) -> SchedulerSettings:
    """Settings under which every plan is easily foreseen, but for `changes`."""
    plain = {"warm_min_tokens": 1, "decode_headroom": 0, "max_multi_step": 1, "multi_step_ms": 0}
    return SchedulerSettings(**{**plain, **changes})  # type: ignore[arg-type]  # of mixed types


def running(harness: Harness) -> set[str]:
    """Requests that hold a slot."""
    return {seq.request_id for seq in harness.core.replica.slots.sequences()}

"""A worker group without a model: executes plans to the letter, and checks every read of KV memory.

The token after a sequence is a hash of the whole sequence, its choice and its seed, so what each request must give is
known, whatever else ran beside it. Each position of KV memory holds a fingerprint of the tokens up to there; a step
that reads one written for other tokens fails the test at once. It reads what its layers would: all positions, or those
that a window shows, and of a state the one page, which must be that of the tokens so far and of no others.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from radixmesh.shared.messages import (
    Admission,
    Claimed,
    Finish,
    KvGroup,
    KvKind,
    SamplingParams,
    Span,
    StepPlan,
    StepReport,
)
from tests.scheduler.sim_preparation import SimPreparations

VOCAB = 997
EOS = 0
STEP_US = 5000
MAX_LEN = 4096
NOWHERE = -1
"""In place of a place in memory."""

_rng = np.random.default_rng(20240607)
_WEIGHTS = _rng.integers(1, 1 << 63, MAX_LEN, np.uint64) | np.uint64(1)
_TOKENS = _rng.integers(1, 1 << 63, VOCAB, np.uint64)
_WEIGHT_INTS: list[int] = _WEIGHTS.tolist()
_TOKEN_INTS: list[int] = _TOKENS.tolist()
_MASK = (1 << 64) - 1


class PlanBroken(AssertionError):
    """A plan asked for something that cannot be right."""


def fingerprints(tokens: NDArray[np.int32]) -> NDArray[np.uint64]:
    """uint64 [len(tokens)]: one per prefix."""
    return np.cumsum(_TOKENS[tokens] * _WEIGHTS[: len(tokens)], dtype=np.uint64)


def fingerprint_behind(before: int, position: int, token: int) -> int:
    """The fingerprint of a prefix and one token more, which stands at `position`."""
    return (before + _TOKEN_INTS[token] * _WEIGHT_INTS[position]) & _MASK


def next_token(fingerprint: int, params: SamplingParams, choice: int) -> int:
    """The token that follows a sequence; about one in sixty is the end."""
    mixed = (fingerprint ^ (params.seed * 0x9E3779B97F4A7C15) ^ (choice * 0xC2B2AE3D27D4EB4F)) & _MASK
    mixed = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9 & _MASK
    mixed ^= mixed >> 32
    return EOS if mixed % 61 == 0 else 1 + mixed % (VOCAB - 1)


def finish_of(token: int, output: int, most: int, params: SamplingParams) -> Finish:
    if token == EOS and not params.ignore_eos:
        return Finish.STOP
    return Finish.LENGTH if output >= most else Finish.RUNNING


def expected_output(
    prompt: NDArray[np.int32], params: SamplingParams, choice: int, max_model_len: int
) -> tuple[list[int], Finish]:
    """What the request gives when it runs alone."""
    most = max_model_len - len(prompt)
    most = most if params.max_tokens is None else min(most, params.max_tokens)
    last = int(fingerprints(prompt)[-1])
    output: list[int] = []
    while True:
        token = next_token(last, params, choice)
        output.append(token)
        finish = finish_of(token, len(output), most, params)
        if finish is not Finish.RUNNING:
            return output, finish
        last = fingerprint_behind(last, len(prompt) + len(output) - 1, token)


class SimSlot:
    """What the worker keeps of a sequence."""

    def __init__(self, admission: Admission, sizes: Claimed) -> None:
        prompt = admission.prompt_ids
        self.admission = admission
        self.most = sizes.max_model_len - len(prompt) + admission.resumed
        """Output tokens, at most."""
        if admission.work.params.max_tokens is not None:
            self.most = min(self.most, admission.work.params.max_tokens)
        self.length = len(prompt)
        self.prints = np.zeros(sizes.max_model_len + 1, np.uint64)
        """Fingerprints of all prefixes, up to `length`."""
        self.prints[: len(prompt)] = fingerprints(prompt)
        self.last = int(self.prints[len(prompt) - 1])
        self.computed = admission.computed_tokens
        self.tables: list[dict[int, int]] = [{} for _ in sizes.groups]
        """By group: pages by number."""
        self.where = [np.full(sizes.max_model_len + 2 * group.page_size, NOWHERE, np.int64) for group in sizes.groups]
        """By group: place in memory of each position, or `NOWHERE`."""
        self.ended = False

    @property
    def output(self) -> int:
        return self.length - len(self.admission.prompt_ids) + self.admission.resumed

    def grant(self, group: int, start: int, pages: list[int], page_size: int) -> None:
        _check(start == max(self.tables[group], default=start - 1) + 1, "a grant leaves a gap")
        self.tables[group] |= dict(enumerate(pages, start))
        fresh = np.repeat(pages, page_size) * page_size + np.tile(np.arange(page_size), len(pages))
        self.where[group][start * page_size : (start + len(pages)) * page_size] = fresh

    def shown(self, group: KvGroup) -> int:
        """The first position that the group's layers see from where the sequence is."""
        return max(0, self.computed - group.window + 1) if group.window else 0

    def append(self, token: int) -> None:
        self.last = fingerprint_behind(self.last, self.length, token)
        self.prints[self.length] = self.last
        self.length += 1


@dataclass(frozen=True)
class Row:
    """Tokens of one choice in one step, as a detokenizer would see them."""

    request_id: str
    choice: int
    attempt: int
    first_index: int
    tokens: list[int]
    finish: Finish
    cached: int


class SimWorker:
    """Executes plans in order. Claims of the plan that cannot be right raise `PlanBroken`."""

    def __init__(self, sizes: Claimed, partial: np.random.Generator | None = None) -> None:
        """With `partial`, plans of several steps stop after a random number of them."""
        self.sizes = sizes
        self.slots: dict[int, SimSlot] = {}
        self.preparations = SimPreparations(sizes)
        self.memory = [
            np.zeros(group.num_pages * (1 if group.kind is KvKind.STATE else group.page_size), np.uint64)
            for group in sizes.groups
        ]
        self.rows: list[Row] = []
        self.seq = -1
        self.fail_slots: set[int] = set()
        """Slots whose next forward pass fails."""
        self.verified: Counter[bool] = Counter()
        """Drafts, by whether they were right."""
        self._partial = partial
        self._guesses = np.random.default_rng(0)

    def run(self, plan: StepPlan) -> StepReport:
        """One step. Tokens are appended to `rows`."""
        _check(plan.seq == self.seq + 1, f"plan {plan.seq} follows {self.seq}")
        self.seq = plan.seq
        for slot in plan.releases.tolist():
            _check(self.slots.pop(slot, None) is not None, f"slot {slot} is released but free")
        for admission in plan.admissions:
            self._admit(admission)
        self._grant(plan)
        _check(len(set(plan.span_slots.tolist())) == plan.span_slots.size, "a slot has two spans in one plan")
        report = _Report()
        for span in plan.spans():
            self._span(span, plan.steps, report)
        return report.message(plan)

    def _admit(self, admission: Admission) -> None:
        slot = admission.slot
        _check(0 <= slot < self.sizes.max_slots and slot not in self.slots, f"slot {slot} is taken or does not exist")
        prompt = admission.prompt_ids
        _check(0 <= admission.computed_tokens < len(prompt), "the whole prompt is said to be cached")
        self.slots[slot] = state = SimSlot(admission, self.sizes)
        _check(admission.resumed < state.most, "nothing is left to generate")

    def _grant(self, plan: StepPlan) -> None:
        start = 0
        columns = (plan.grant_slots, plan.grant_groups, plan.grant_starts, plan.grant_counts)
        for slot, number, first, count in zip(*(column.tolist() for column in columns), strict=True):
            state, group = self.slots[slot], self.sizes.groups[number]
            pages = plan.grant_pages[start : start + count].tolist()
            _check(all(0 <= page < group.num_pages for page in pages), "a page does not exist")
            in_use = {page for at, page in state.tables[number].items() if at * group.page_size >= state.shown(group)}
            _check(state.ended or not set(pages) & in_use, "a page is granted twice")
            state.grant(number, first, pages, group.page_size)
            start += count
        _check(start == len(plan.grant_pages), "grants do not fit their counts")

    def _span(self, span: Span, steps: int, report: "_Report") -> None:
        state = self.slots[span.slot]
        self.preparations.check(state.admission.work)
        made: list[int] = []
        finish = Finish.RUNNING
        if state.ended:
            self._overrun(state, span, steps)
        elif self._fails(span.slot, state, report):
            pass
        else:
            self._check_place(state, span)
            self._forward(state, state.computed, span.count)
            if span.sampled:
                made, finish = self._sample(state, span.drafts, steps)
        report.add(made, finish)

    def _check_place(self, state: SimSlot, span: Span) -> None:
        """Whether the span begins where the sequence is, or behind the prompt not before that."""
        prompt, end = len(state.admission.prompt_ids), span.start + span.count
        _check(span.count > 0 and span.drafts <= self.sizes.max_drafts, f"{span} is not for this worker")
        if span.start < prompt:
            _check(span.start == state.computed and end <= prompt, f"{span} of a prompt of {prompt}")
            _check(bool(span.sampled) == (end == prompt), f"{span} is sampled where it should not be, or is not")
        else:
            _check(state.computed == state.length - 1, "a slot decodes before its prompt is done")
            _check(state.computed <= span.start and span.count == 1, f"{span} of a sequence at {state.computed}")

    def _overrun(self, state: SimSlot, span: Span, steps: int) -> None:
        """An accelerator may run a decode behind the end before it knows of it, and writes rubbish there."""
        most = steps * (1 + span.drafts)
        for memory, where in zip(self.memory, state.where, strict=True):
            places = where[state.computed : state.computed + most]
            memory[places[places != NOWHERE]] = 1

    def _fails(self, slot: int, state: SimSlot, report: "_Report") -> bool:
        if slot not in self.fail_slots:
            return False
        self.fail_slots.discard(slot)
        state.ended = True
        report.failed.append(slot)
        return True

    def _forward(self, state: SimSlot, start: int, count: int) -> None:
        """Reads the KV of everything before, and writes that of the new positions."""
        stop = start + count
        for number, (group, memory, where) in enumerate(zip(self.sizes.groups, self.memory, state.where, strict=True)):
            if group.kind is KvKind.STATE:
                self._pass_state(state, number, start, stop)
                continue
            first = state.shown(group)
            _check(bool((where[first:stop] != NOWHERE).all()), f"no page for a position before {stop}")
            seen = memory[where[first:start]] == state.prints[first:start]
            _check(bool(seen.all()), "a position holds the KV of another sequence")
            memory[where[start:stop]] = state.prints[start:stop]
        state.computed = stop

    def _pass_state(self, state: SimSlot, group: int, start: int, stop: int) -> None:
        """The sequence's only page holds what the tokens before `start` have left; then those before `stop`."""
        _check(list(state.tables[group]) == [0], "a sequence needs one page of its state")
        page, memory = state.tables[group][0], self.memory[group]
        _check(start == 0 or memory[page] == state.prints[start - 1], "a state is that of other tokens")
        memory[page] = state.prints[stop - 1]

    def _sample(self, state: SimSlot, drafts: int, steps: int) -> tuple[list[int], Finish]:
        """What follows a sequence of which all is computed, in up to `steps` passes."""
        if self._partial is not None and steps > 1:
            steps = int(self._partial.integers(1, steps + 1))
        first = state.output
        made: list[int] = []
        finish = self._verify(state, drafts, made)
        for _ in range(steps - 1):
            if finish is Finish.RUNNING:
                self._forward(state, state.computed, 1)
                finish = self._verify(state, drafts, made)
        state.ended = finish is not Finish.RUNNING
        held = state.admission
        self.rows.append(Row(held.request_id, held.choice, held.attempt, first, made, finish, held.cached_tokens))
        return made, finish

    def _verify(self, state: SimSlot, drafts: int, made: list[int]) -> Finish:
        """Appends the token that follows, and those behind it whose guesses, up to `drafts`, are right before that."""
        work, choice = state.admission.work, state.admission.choice
        room = max(0, min(drafts, state.most - state.output - 1))
        guesses = self._guess(state, int(self._guesses.integers(0, room + 1))) if room else []
        for guess in [*guesses, -1]:
            token = next_token(state.last, work.params, choice)
            state.append(token)
            made.append(token)
            finish = finish_of(token, state.output, state.most, work.params)
            if guess >= 0:
                self.verified[guess == token] += 1
            if finish is not Finish.RUNNING or guess != token:
                break
        state.computed = state.length - 1
        return finish

    def _guess(self, state: SimSlot, count: int) -> list[int]:
        """Guesses, most of them right, with their KV written behind the sequence."""
        guesses, last = [], state.last
        for position in range(state.length, state.length + count):
            _check(all(where[position] != NOWHERE for where in state.where), f"no page for a draft at {position}")
            token = next_token(last, state.admission.work.params, state.admission.choice)
            if self._guesses.random() < 0.3:
                token = int(self._guesses.integers(VOCAB))
            guesses.append(token)
            last = fingerprint_behind(last, position, token)
            for memory, where in zip(self.memory, state.where, strict=True):
                memory[where[position]] = last
        return guesses


class _Report:
    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.tokens: list[int] = []
        self.finish: list[int] = []
        self.failed: list[int] = []

    def add(self, tokens: list[int], finish: Finish) -> None:
        self.accepted.append(len(tokens))
        self.tokens += tokens
        self.finish.append(int(finish))

    def message(self, plan: StepPlan) -> StepReport:
        return StepReport(
            epoch=plan.epoch,
            seq=plan.seq,
            accepted=np.array(self.accepted, np.int32),
            tokens=np.array(self.tokens, np.int32),
            finish=np.array(self.finish, np.uint8),
            failed_slots=np.array(self.failed, np.int32),
            failures=["the test wanted it"] * len(self.failed),
            step_us=STEP_US * max(plan.steps, 1),
        )


def _check(fine: bool, problem: str) -> None:
    if not fine:
        raise PlanBroken(problem)

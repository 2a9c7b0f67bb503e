"""From an `Admit` message to sequences in the queue: what can be refused is refused here.

How many sequences a replica takes in:

    running + waiting <= slots + max_queued_requests

So the limit on the queue counts what waits while no slot is free: nobody is refused for whom there is a slot or a place
behind the slots, and one that goes from its slot back to the queue has its place there. Who waits for pages, for a
prefix that another one computes, or for what is prepared for it, while slots are free counts as if it had one of them.

The choices of a request come in together or not at all. Where the policy knows priorities, a request without room
displaces the last ones in the queue, each with all its choices, if they are of lower priority and enough; one of which
a part runs gives way only to whom that part would be preempted for.
"""

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.replica import Replica
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Admit, Choice, Task, packed_size
from radixmesh.shared.prefix_hash import cache_namespace

_CANCELS_KEPT = 8192


class CancelLog:
    """The latest cancels of requests unknown here: a gateway's `Cancel` can overtake its request's `Admit`."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str, int], int] = {}

    def note(self, request_id: str, choice: int, attempt: int) -> None:
        """Attempts up to `attempt` of that choice (-1: of all) are not wanted."""
        key = (request_id, choice)
        self._attempts[key] = max(attempt, self._attempts.pop(key, -1))
        while len(self._attempts) > _CANCELS_KEPT:
            del self._attempts[next(iter(self._attempts))]

    def covers(self, request_id: str, choice: int, attempt: int) -> bool:
        """Whether that attempt of the choice has been cancelled."""
        return any(attempt <= self._attempts.get((request_id, key), -1) for key in (choice, -1))


def check_prompt(admit: Admit, replica: Replica) -> None:
    """Raises RequestError if the prompt can never run here."""
    prompt, sizes = admit.prompt_ids, replica.sizes
    if not prompt.size:
        raise RequestError(ErrorCode.INVALID_REQUEST, "the prompt has no tokens", param="prompt")
    for tokens in (prompt, *(choice.resumed for choice in admit.choices)):
        strange = tokens[(tokens < 0) | (tokens >= sizes.vocab_size)]
        if strange.size:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"token id {strange[0]} is not in the model's vocabulary of {sizes.vocab_size}",
                param="prompt",
            )
    if prompt.size + 1 > replica.max_len:
        bound = "the model's context" if replica.max_len == sizes.max_model_len else "the replica's KV memory"
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"the prompt has {prompt.size} tokens; with one of output it must fit {bound}, {replica.max_len} tokens",
            param="prompt",
        )


def check_task(admit: Admit) -> None:
    """Raises RequestError for a task that this release has no way to answer."""
    if admit.work.task is not Task.GENERATE:
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"the task {admit.work.task.value!r} is not served; {Task.GENERATE.value!r} is"
        )


def check_needs(admit: Admit, replica: Replica) -> None:
    """Raises RequestError if the work needs what the worker group does not prepare."""
    lacking = replica.preparations.lacks(admit.work.needs())
    if lacking is not None:
        text = f"this replica prepares no {lacking.kind}, which the request needs"
        raise RequestError(ErrorCode.INVALID_REQUEST, text, param=lacking.kind)


def wanted_choices(admit: Admit) -> list[Choice]:
    """The choices to run, one per index; an empty list in the message means all of them, from their start."""
    if admit.choices:
        return list({choice.index: choice for choice in admit.choices}.values())
    return [Choice(index=index) for index in range(admit.work.params.n)]


def new_sequences(admit: Admit, choices: list[Choice], replica: Replica, order: int, now: float) -> list[Sequence]:
    """One sequence per choice, numbered from `order`. ``limit <= len(prompt)`` means that it is complete already."""
    work, size = admit.work, admit.prompt_ids.size
    most = work.params.max_tokens
    limit = replica.max_len if most is None else min(replica.max_len, size + most)
    if limit < replica.sizes.max_model_len and most != limit - size:
        # Memory is the bound, which the worker does not know of: it must end the sequence there.
        work = work.model_copy(update={"params": work.params.model_copy(update={"max_tokens": limit - size})})
    namespace = cache_namespace(work.cache_salt, work.lora)
    if 0 < replica.sizes.length_keyed_above < size:
        namespace += f"\x1f{size}"  # the KV of such a prompt depends on its length
    work_bytes, needs = packed_size(work), work.needs()
    return [
        Sequence(
            request_id=admit.request_id,
            choice=choice.index,
            attempt=admit.attempt,
            gateway_id=admit.gateway_id,
            detokenizer_id=admit.detokenizer_id,
            work=work,
            work_bytes=work_bytes,
            needs=needs,
            prepared=not needs,
            namespace=namespace,
            order=number,
            prompt=_prompt(admit, choice),
            prompt_tokens=size,
            limit=limit,
            arrived_at=now,
            queued_at=now,
            deadline=now + admit.time_left,
            held=replica.kv.nothing(),
        )
        for number, choice in enumerate(choices, order)
    ]


def _prompt(admit: Admit, choice: Choice) -> NDArray[np.int32]:
    tokens = np.concatenate([admit.prompt_ids, choice.resumed]) if choice.resumed.size else admit.prompt_ids
    return np.ascontiguousarray(tokens, np.int32)


def make_room(replica: Replica, newcomers: list[Sequence], replaced: int) -> list[list[Sequence]]:
    """The requests that must leave so that `newcomers`, choices of one request, can come in; lowest first.

    Args:
        replaced: sequences of an older attempt that end when these come.

    Raises:
        RequestError: QUEUE_FULL; there is no room, and too little that would give way.
    """
    excess = replica.taken - replaced + len(newcomers) - replica.capacity
    if not newcomers or excess <= 0:
        return []
    leaving: dict[str, list[Sequence]] = {}
    first = newcomers[0]
    for last in reversed(replica.queue):
        if excess <= 0 or not replica.policy.displaces(first, last):
            break
        choices = list(replica.requests[last.request_id].values())
        known = last.request_id in leaving or last.request_id == first.request_id
        if not known and all(replica.policy.displaces(first, seq) for seq in choices):
            leaving[last.request_id] = choices
            excess -= len(choices)
    if excess > 0:
        raise _full(replica, len(newcomers))
    return list(leaving.values())


def _full(replica: Replica, count: int) -> RequestError:
    slots, most, waiting = replica.slots.usable, replica.settings.max_queued_requests, len(replica.queue)
    if count > replica.capacity:
        text = f"{count} choices are more than this replica ever takes in: it runs {slots} and lets {most} wait"
        return RequestError(ErrorCode.QUEUE_FULL, text, param="n")
    text = (
        f"{waiting} sequences wait for this replica and {replica.slots.running} run: "
        f"{count} more would be over the {most} that may wait behind its {slots} slots"
    )
    return RequestError(ErrorCode.QUEUE_FULL, text, retry_after=replica.rate.seconds_for(waiting))

"""From an `Admit` message to sequences: what can be refused is refused here."""

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.replica import ReplicaState
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Admit, Choice, Task, packed_size
from radixmesh.shared.prefix_hash import cache_namespace


def check_prompt(admit: Admit, state: ReplicaState) -> None:
    """Raises RequestError if the prompt can never run here."""
    prompt, sizes = admit.prompt_ids, state.sizes
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
    if prompt.size + 1 > state.max_len:
        bound = "the model's context" if state.max_len == sizes.max_model_len else "the replica's KV memory"
        raise RequestError(
            ErrorCode.CONTEXT_LENGTH_EXCEEDED,
            f"the prompt has {prompt.size} tokens; with one of output it must fit {bound}, {state.max_len} tokens",
            param="prompt",
        )


def check_task(admit: Admit) -> None:
    """Raises RequestError for a task that this release has no way to answer."""
    if admit.work.task is not Task.GENERATE:
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"the task {admit.work.task.value!r} is not served; {Task.GENERATE.value!r} is"
        )


def wanted_choices(admit: Admit) -> list[Choice]:
    """The choices to run, one per index; an empty list in the message means all of them, from their start."""
    if admit.choices:
        return list({choice.index: choice for choice in admit.choices}.values())
    return [Choice(index=index) for index in range(admit.work.params.n)]


def new_sequences(admit: Admit, choices: list[Choice], state: ReplicaState, order: int, now: float) -> list[Sequence]:
    """One sequence per choice, numbered from `order`. ``limit <= len(prompt)`` means that it is complete already."""
    work, size = admit.work, admit.prompt_ids.size
    most = work.params.max_tokens
    limit = state.max_len if most is None else min(state.max_len, size + most)
    if limit < state.sizes.max_model_len and most != limit - size:
        # Memory is the bound, which the worker does not know of: it must end the sequence there.
        work = work.model_copy(update={"params": work.params.model_copy(update={"max_tokens": limit - size})})
    namespace = cache_namespace(work.cache_salt, work.lora)
    if 0 < state.sizes.length_keyed_above < size:
        namespace += f"\x1f{size}"  # the KV of such a prompt depends on its length
    work_bytes = packed_size(work)
    return [
        Sequence(
            request_id=admit.request_id,
            choice=choice.index,
            attempt=admit.attempt,
            gateway_id=admit.gateway_id,
            detokenizer_id=admit.detokenizer_id,
            work=work,
            work_bytes=work_bytes,
            namespace=namespace,
            order=number,
            prompt=_prompt(admit, choice),
            prompt_tokens=size,
            limit=limit,
            arrived_at=now,
            queued_at=now,
            deadline=now + admit.time_left,
            held=state.kv.nothing(),
        )
        for number, choice in enumerate(choices, order)
    ]


def _prompt(admit: Admit, choice: Choice) -> NDArray[np.int32]:
    tokens = np.concatenate([admit.prompt_ids, choice.resumed]) if choice.resumed.size else admit.prompt_ids
    return np.ascontiguousarray(tokens, np.int32)

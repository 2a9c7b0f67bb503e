"""Token-level ends: end-of-sequence, stop token ids, length."""

from collections.abc import Collection

from radixmesh.services.model_worker.engine.outputs import NO_STOP_TOKEN
from radixmesh.services.model_worker.engine.slots import Slot
from radixmesh.shared.messages import Finish


def finish_of(slot: Slot, token: int, eos_token_ids: Collection[int]) -> tuple[Finish, int]:
    """Whether `slot` ends with `token`, which it has just been given.

    Returns:
        The finish, and the stop token id that caused it (`NO_STOP_TOKEN` for any other cause).
    """
    params = slot.work.params
    if slot.output_len >= params.min_tokens:
        if token in eos_token_ids and not params.ignore_eos:
            return Finish.STOP, NO_STOP_TOKEN
        if token in params.stop_token_ids:
            return Finish.STOP, token
    if slot.output_len >= slot.max_output:
        return Finish.LENGTH, NO_STOP_TOKEN
    return Finish.RUNNING, NO_STOP_TOKEN

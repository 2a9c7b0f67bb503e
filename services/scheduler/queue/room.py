"""How many sequences a replica takes in, and who leaves a full queue for whom.

    running + waiting <= slots + max_queued_requests

So the limit on the queue counts what waits while no slot is free: nobody is refused for whom there is a slot or a place
behind the slots, and one that goes from its slot back to the queue has its place there. Who waits for pages, or for a
prefix that another one computes, while slots are free counts as if it had one of them.

The choices of a request come in together or not at all. Where the policy knows priorities, a request without room
displaces the last ones in the queue, each with all its choices, if they are of lower priority and enough; one of which
a part runs gives way only to whom that part would be preempted for.
"""

from radixmesh.services.scheduler.replica import ReplicaState
from radixmesh.services.scheduler.sequence import Sequence
from radixmesh.shared.errors import ErrorCode, RequestError


def make_room(state: ReplicaState, newcomers: list[Sequence], replaced: int) -> list[list[Sequence]]:
    """The requests that must leave so that `newcomers`, choices of one request, can come in; lowest first.

    Args:
        replaced: sequences of an older attempt that end when these come.

    Raises:
        RequestError: QUEUE_FULL; there is no room, and too little that would give way.
    """
    excess = state.taken - replaced + len(newcomers) - state.capacity
    if not newcomers or excess <= 0:
        return []
    leaving: dict[str, list[Sequence]] = {}
    first = newcomers[0]
    for last in reversed(state.queue):
        if excess <= 0 or not state.policy.displaces(first, last):
            break
        choices = list(state.live[last.request_id].values())
        known = last.request_id in leaving or last.request_id == first.request_id
        if not known and all(state.policy.displaces(first, seq) for seq in choices):
            leaving[last.request_id] = choices
            excess -= len(choices)
    if excess > 0:
        raise _full(state, len(newcomers))
    return list(leaving.values())


def _full(state: ReplicaState, count: int) -> RequestError:
    slots, most, waiting = state.slots.usable, state.settings.max_queued_requests, len(state.queue)
    if count > state.capacity:
        text = f"{count} choices are more than this replica ever takes in: it runs {slots} and lets {most} wait"
        return RequestError(ErrorCode.QUEUE_FULL, text, param="n")
    text = (
        f"{waiting} sequences wait for this replica and {state.slots.running} run: "
        f"{count} more would be over the {most} that may wait behind its {slots} slots"
    )
    return RequestError(ErrorCode.QUEUE_FULL, text, retry_after=state.rate.seconds_for(waiting))

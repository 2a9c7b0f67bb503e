"""What waits for a service: control traffic in one lane, requests that are not begun in another.

    requests   Submit, Admit. Nothing has been done for them yet, so they can be refused with QUEUE_FULL.
    control    all else. It is about work that is in hand (reports, tokens, ends, cancels), or about who is there
               (claims, presence), and mostly makes work less; so it goes first, and has room of its own. `OpenText`
               is among it because its request's tokens come behind it.

How much control traffic there can be is bounded by what it is about: reports by the plans in flight, tokens by the
running sequences, claims by the schedulers, heartbeats by the members. A process would have to stand still for long
for `CONTROL_BYTES` of it to come. Then what comes is dropped, and found missing by those who need it: plans, reports
and cache events by `seq`, tokens and text by `first_index`, a claim by its timeout, a heartbeat by the next one,
`Routed` and `RequestFailed` by the gateway's timeouts. Only a cancel is not missed: its sequence runs on to its end.
"""

import asyncio
import logging
from collections import Counter, deque
from enum import Enum

from radixmesh.shared.bus.envelope import Envelope
from radixmesh.shared.messages import Admit, Submit, tag_of

log = logging.getLogger(__name__)

CONTROL_BYTES = 64 << 20
"""Control traffic kept while the service is busy."""

ENVELOPE_BYTES = 512
"""About what a message takes beside its data."""

_REQUESTS = frozenset(kind.TAG for kind in (Submit, Admit))


class Lane(Enum):
    """Where a message waits."""

    CONTROL = "control"
    REQUESTS = "requests"


def lane_of(envelope: Envelope) -> Lane:
    """By the message's tag. What is no message, and will be dropped, waits with the requests."""
    tag = tag_of(envelope.data)
    return Lane.REQUESTS if tag in _REQUESTS or not tag else Lane.CONTROL


class Mailbox:
    """Two lanes, each in the order in which messages came; for one reader.

    Args:
        max_requests: messages that may wait in the requests' lane.
        control_bytes: size of what may wait in the control lane.
    """

    def __init__(self, max_requests: int, control_bytes: int = CONTROL_BYTES) -> None:
        self._max_requests = max_requests
        self._control_bytes = control_bytes
        self._lanes: dict[Lane, deque[Envelope]] = {lane: deque() for lane in Lane}
        self._bytes = 0
        """Of what waits in the control lane."""
        self._dropped = Counter[Lane]()
        self._arrived = asyncio.Event()

    def waiting(self, lane: Lane) -> int:
        """Messages in a lane."""
        return len(self._lanes[lane])

    def put(self, envelope: Envelope, lane: Lane) -> bool:
        """Lets a message into a lane; False, with a line in the log now and then, if that is full."""
        if self._is_full(lane, envelope):
            self._dropped[lane] += 1
            count = self._dropped[lane]
            if count & (count - 1) == 0:  # a line at 1, 2, 4, 8, ... of them
                level = logging.ERROR if lane is Lane.CONTROL else logging.WARNING
                log.log(level, "the mailbox's lane of %s is full; %d messages dropped so far", lane.value, count)
            return False
        if lane is Lane.CONTROL:
            self._bytes += _size(envelope)
        self._lanes[lane].append(envelope)
        self._arrived.set()
        return True

    def _is_full(self, lane: Lane, envelope: Envelope) -> bool:
        if lane is Lane.REQUESTS:
            return len(self._lanes[lane]) >= self._max_requests
        return self._bytes > 0 and self._bytes + _size(envelope) > self._control_bytes

    async def get(self) -> tuple[Envelope, Lane]:
        """Waits for a message: the oldest of the control lane, or, if there is none, of the requests'."""
        while True:
            for lane in Lane:
                if self._lanes[lane]:
                    envelope = self._lanes[lane].popleft()
                    if lane is Lane.CONTROL:
                        self._bytes -= _size(envelope)
                    return envelope, lane
            self._arrived.clear()
            await self._arrived.wait()


def _size(envelope: Envelope) -> int:
    return len(envelope.data) + ENVELOPE_BYTES

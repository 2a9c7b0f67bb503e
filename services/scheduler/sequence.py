"""One choice of a request, as the scheduler knows it."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from radixmesh.services.scheduler.memory.holding import Holdings
from radixmesh.services.scheduler.memory.radix_node import Peek
from radixmesh.shared.messages import Need, Work


class Phase(Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    PREFILL = "prefill"
    """It has a slot; part of its prompt is in no plan yet."""
    DECODE = "decode"
    """Its whole prompt is in plans, run or in flight."""
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens, memory and progress of one choice.

        prompt  [ request's prompt | resumed ]  output [ learned from reports ... ]
                0 ....... prompt_tokens ..... len(prompt) .................. length ........ limit

    Retraction moves `output` into `prompt`, so that the next admission computes it as prompt.
    """

    request_id: str
    choice: int
    attempt: int
    gateway_id: str
    detokenizer_id: str
    work: Work
    work_bytes: int
    """What `work` takes in a plan."""
    needs: tuple[Need, ...]
    """What must be prepared before it can be admitted."""
    namespace: str
    order: int
    """Number of arrival, unique in a scheduler's life."""
    prompt: NDArray[np.int32]
    prompt_tokens: int
    """Tokens of the request's own prompt."""
    limit: int
    """Most tokens, prompt and output together, that it may come to."""
    arrived_at: float
    queued_at: float
    deadline: float
    held: Holdings
    """Its KV memory."""
    waited: float = 0.0
    """Seconds from its arrival to its first slot."""
    prepare_seconds: float = 0.0
    """From its arrival until all that it needs was there."""
    phase: Phase = Phase.WAITING
    prepared: bool = True
    """All that it needs is there."""
    promoted: bool = False
    """It has waited so long that it goes first, and is not preempted."""
    ready_after: int = -1
    """Plan whose report must be in before it can be admitted (again)."""
    output: list[int] = field(default_factory=list)
    slot: int = -1
    admissions: int = 0
    """How often it took a slot."""
    planned: int = 0
    """Tokens of `prompt` that are cached or in plans."""
    computed: int = 0
    """Tokens of `prompt` whose KV is known to be written."""
    attached: int = 0
    """Tokens of `prompt` that came from the prefix cache at the last admission."""
    cached: int = 0
    """The same at the first one: what others had computed. Later ones find the sequence's own work."""
    traceparent: str = ""
    hashes: NDArray[np.uint64] | None = None
    """Block hashes of `prompt`, once somebody asked."""
    peeked: Peek | None = None
    """Its cached prefix as the policy saw it when the tree's version was `peeked_at`; its locks may have changed."""
    peeked_at: int = -1

    @property
    def resumed(self) -> int:
        """Output tokens at the end of `prompt`."""
        return len(self.prompt) - self.prompt_tokens

    @property
    def complete(self) -> bool:
        """Whether the resumed tokens are all that it may have."""
        return len(self.prompt) >= self.limit

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.output)

    @property
    def stored(self) -> int:
        """Tokens whose KV is known to be written. The newest output token's is not: it has not been fed yet."""
        return self.length - 1 if self.output else self.computed

    @property
    def reached(self) -> int:
        """Where passes of plans not yet made begin, at the earliest."""
        return max(self.planned, self.stored)

    @property
    def rank(self) -> tuple[int, int]:
        """Sorts running sequences: the greatest goes first when memory is short."""
        return (-self.work.priority if not self.promoted else -(1 << 62), self.order)

    def tokens(self, start: int, stop: int) -> NDArray[np.int32]:
        """Tokens start <= position < stop, int32."""
        if stop <= len(self.prompt):
            return self.prompt[start:stop]
        output = np.array(self.output[max(0, start - len(self.prompt)) : stop - len(self.prompt)], np.int32)
        return np.concatenate([self.prompt[start:], output]) if start < len(self.prompt) else output

    def fold(self) -> None:
        """Makes the output so far part of the prompt, for the next admission."""
        if self.output:
            self.prompt = np.concatenate([self.prompt, np.array(self.output, np.int32)])
            self.output = []
            self.hashes = self.peeked = None

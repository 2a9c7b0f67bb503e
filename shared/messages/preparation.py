"""What a worker group is to prepare for sequences that have no slot yet, and what came of it."""

from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Int64
from radixmesh.shared.messages.work import Work


class Prepare(Message):
    """Asks every rank of a group for what sequences need that are to be admitted. Each answers with `Prepared`.

    It is sent again when no answer has come: a rank that is at it does nothing, one that is done answers once more.
    """

    epoch: Int64
    number: Int64
    """0, 1, 2, ... within an epoch. The first one that a rank sees of a newer epoch ends all that it had before."""
    replica_id: str
    """To whom the answers go."""
    kind: str
    work: Work
    """Nothing but the field `kind`: see `Work.only`."""
    replaces: Int64 = -1
    """Number of an earlier one, of whose result no plan makes use any more; -1: of none."""


class Prepared(Message):
    """What has come of a `Prepare` on one rank."""

    epoch: Int64
    number: Int64
    rank: Int64 = 0
    seconds: float = 0.0
    """What it took."""
    code: ErrorCode | None = None
    """Why those who need it cannot be served; None: it is there."""
    message: str = ""
    param: str | None = None
    retry_after: float | None = None
    """Seconds."""

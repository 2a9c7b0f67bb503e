"""What the scheduler's logic wants sent."""

from dataclasses import dataclass

import numpy as np

from radixmesh.shared.errors import RequestError
from radixmesh.shared.messages import Finish, RequestFailed, TokenBatch


@dataclass(frozen=True, slots=True)
class ToGateway:
    """A request, or one choice of it, has failed."""

    gateway_id: str
    message: RequestFailed


@dataclass(frozen=True, slots=True)
class ToDetokenizer:
    """A choice that ended without running."""

    detokenizer_id: str
    message: TokenBatch


Effect = ToGateway | ToDetokenizer


def failed(gateway_id: str, request_id: str, attempt: int, error: RequestError, *, choice: int = -1) -> ToGateway:
    """`RequestFailed` for a gateway."""
    message = RequestFailed(
        request_id=request_id,
        attempt=attempt,
        choice=choice,
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after=error.retry_after,
        service="scheduler",
    )
    return ToGateway(gateway_id, message)


def already_complete(
    detokenizer_id: str, replica_id: str, epoch: int, request_id: str, choice: int, attempt: int, index: int
) -> ToDetokenizer:
    """The end of a choice whose resumed tokens are all it may have: no new token, finish LENGTH."""
    message = TokenBatch(
        replica_id=replica_id,
        epoch=epoch,
        request_ids=[request_id],
        choices=np.array([choice]),
        attempts=np.array([attempt]),
        first_index=np.array([index]),
        counts=np.array([0]),
        tokens=np.empty(0),
        finish=np.array([Finish.LENGTH]),
        cached_tokens=np.array([0]),
    )
    return ToDetokenizer(detokenizer_id, message)

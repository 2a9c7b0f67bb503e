"""A scheduler and a worker group find each other."""

from pydantic import Field

from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Int64


class Claim(Message):
    """A scheduler asks a worker group to work for it. Answered by `Claimed` or `Refused`."""

    scheduler_id: str
    replica_id: str
    epoch: Int64


class Claimed(Message):
    """The worker group's size, in answer to a `Claim`."""

    group_id: str
    page_size: Int64
    """Tokens per KV page."""
    num_pages: Int64
    max_slots: Int64
    """Sequences that can run at once."""
    max_model_len: Int64
    """Tokens, prompt and output together."""
    vocab_size: Int64
    eos_token_ids: list[Int64] = []
    max_drafts: Int64 = Field(default=0, ge=0)
    """Draft tokens that the group proposes for one pass over a sequence, at most."""
    length_keyed_above: Int64 = 0
    """Prompts of more tokens than this share cached pages only with prompts of the very same length (dynamic NTK
    rotary embeddings depend on it); 0: no such bound."""


class Refused(Message):
    """The answer to a request that is not granted."""

    reason: str
    epoch: Int64 = -1
    """A claim with an epoch above this one might be granted; -1: the epoch is not the reason."""

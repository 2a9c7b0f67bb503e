"""A scheduler and a worker group find each other."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from radixmesh.shared.messages.codec import Message, Part
from radixmesh.shared.messages.columns import Int64


class Claim(Message):
    """A scheduler asks a worker group to work for it. Answered by `Claimed` or `Refused`."""

    scheduler_id: str
    replica_id: str
    epoch: Int64


class KvKind(StrEnum):
    """How long layers need what they have written to KV memory."""

    FULL = "full"
    """Keys and values of each token: as long as its sequence."""
    WINDOW = "window"
    """Keys and values of each token: until the window has moved on."""
    LATENT = "latent"
    """One row for each token, for all heads together (MLA): as long as its sequence."""
    STATE = "state"
    """What the tokens so far have left behind (linear attention, Mamba): one page per sequence, overwritten by each
    pass, and copies of it that were made at page borders."""


class KvGroup(Part):
    """The KV memory of those of a model's layers that need it for equally long: a pool of pages of its own."""

    kind: KvKind = KvKind.FULL
    page_size: Int64
    """Tokens per page."""
    num_pages: Int64
    window: Int64 = 0
    """Tokens that a query sees, its own included; of WINDOW only."""


class Claimed(Message):
    """The worker group's size, in answer to a `Claim`."""

    VERSION: ClassVar[int] = 2  # 2: `groups`, for which there were the page size and number of one before

    group_id: str
    groups: list[KvGroup]
    """The model's layers by the life of their KV memory; plans grant pages of each, by place in this list."""
    max_slots: Int64
    """Sequences that can run at once."""
    max_model_len: Int64
    """Tokens, prompt and output together."""
    vocab_size: Int64
    eos_token_ids: list[Int64] = []
    max_drafts: Int64 = Field(default=0, ge=0)
    """Draft tokens that the group proposes for one pass over a sequence, at most."""
    ranks: Int64 = Field(default=1, ge=1)
    """Processes of the group, each of which answers a `Prepare`."""
    prepares: dict[str, Int64] = {}
    """What the group can prepare, by kind: how many results of it each rank keeps."""
    length_keyed_above: Int64 = 0
    """Prompts of more tokens than this share cached pages only with prompts of the very same length (dynamic NTK
    rotary embeddings depend on it); 0: no such bound."""


class Refused(Message):
    """The answer to a request that is not granted."""

    reason: str
    epoch: Int64 = -1
    """A claim with an epoch above this one might be granted; -1: the epoch is not the reason."""

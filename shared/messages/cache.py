"""What a replica's prefix cache holds."""

from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Int64, UInt64Column, empty_column


class KvEvents(Message):
    """Changes of one replica's prefix cache, for routing. Blocks are named by `prefix_hash.block_hashes`."""

    replica_id: str
    epoch: Int64
    seq: Int64
    """0, 1, 2, ... within an epoch. On a gap the receiver asks for a snapshot."""
    block_size: Int64
    """Tokens per block."""
    cleared: bool = False
    """Everything known of the replica is void; applied before `stored`."""
    stored: UInt64Column = empty_column("<u8")
    removed: UInt64Column = empty_column("<u8")


class KvSnapshotRequest(Message):
    """Asks a scheduler to publish its whole prefix cache as one `KvEvents` with `cleared` set."""


class FlushCache(Message):
    """Asks a scheduler to forget its prefix cache. Answered by `CacheFlushed`."""


class CacheFlushed(Message):
    """How many pages came free, and how many are still held by running requests."""

    pages_freed: Int64
    pages_in_use: Int64

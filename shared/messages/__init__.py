"""The one contract: every message that travels on the bus.

    requests      gateway -> tokenizer -> gateway, detokenizer, scheduler; failures and cancels, from anyone
    groups        scheduler <-> worker group: whom it works for
    preparation   scheduler <-> worker group: what it makes ready for sequences without a slot
    steps         scheduler <-> worker group: what it does
    text          model worker -> detokenizer -> gateway
    presence      everyone -> everyone
    cache         scheduler -> tokenizers, and what operators may ask of it
    work          what is asked for: parts of the messages above
    codec, columns   how a message is packed; rows: how one in columns is read

A message is a frozen pydantic model, packed with msgpack as ``[tag, version, fields]``. Unknown fields are
ignored and missing ones take their defaults, so services of neighbouring releases can be mixed during a rolling
upgrade; a change that breaks this raises the class's ``VERSION``, and a receiver that does not know the version
refuses the message by name.

Hot messages are *columnar*: one array per field, one element per sequence, carried as little-endian bytes and
read with ``np.frombuffer``, so that coding costs the same whatever the batch size. *Ragged* columns hold all rows
end to end, with a ``counts`` column beside them.

Words used throughout:
    request_id   32 hex digits, made by the gateway; one client request.
    choice       0 <= choice < n; one sequence of a request. -1 stands for all of them.
    attempt      0 for the first trip round the ring, +1 for each re-dispatch. Higher fences off lower.
    index        position in a choice's output: 0 is the first generated token.
    epoch        rises with every process that holds a name: microseconds since 1970 at its start, or one more than is
                 known already, see `presence.epochs`. Higher fences off lower.
    time_left    seconds for which the gateway still waits, as of when the message was sent. A receiver counts them down
                 from the message's arrival on its own monotonic clock: wall clocks jump, and hosts disagree.
"""

from radixmesh.shared.messages.cache import CacheFlushed, FlushCache, KvEvents, KvSnapshotRequest
from radixmesh.shared.messages.codec import Message, Part, pack, packed_size, tag_of, unpack
from radixmesh.shared.messages.columns import Float32Column, Int32Column, Int64, UInt8Column, UInt64, UInt64Column
from radixmesh.shared.messages.groups import Claim, Claimed, KvGroup, KvKind, Refused
from radixmesh.shared.messages.preparation import Prepare, Prepared
from radixmesh.shared.messages.presence import Outdated, Presence, State, WhoIsThere
from radixmesh.shared.messages.requests import Admit, Cancel, OpenText, RequestFailed, Routed, Submit
from radixmesh.shared.messages.steps import Admission, Span, StepPlan, StepReport
from radixmesh.shared.messages.text import TextBatch, TokenBatch
from radixmesh.shared.messages.work import MIN_REPETITION_PENALTY, Choice, Finish, Need, SamplingParams, Task, Work

__all__ = [
    "MIN_REPETITION_PENALTY",
    "Admission",
    "Admit",
    "CacheFlushed",
    "Cancel",
    "Choice",
    "Claim",
    "Claimed",
    "Finish",
    "Float32Column",
    "FlushCache",
    "Int32Column",
    "Int64",
    "KvEvents",
    "KvGroup",
    "KvKind",
    "KvSnapshotRequest",
    "Message",
    "Need",
    "OpenText",
    "Outdated",
    "Part",
    "Prepare",
    "Prepared",
    "Presence",
    "Refused",
    "RequestFailed",
    "Routed",
    "SamplingParams",
    "Span",
    "State",
    "StepPlan",
    "StepReport",
    "Submit",
    "Task",
    "TextBatch",
    "TokenBatch",
    "UInt8Column",
    "UInt64",
    "UInt64Column",
    "WhoIsThere",
    "Work",
    "pack",
    "packed_size",
    "tag_of",
    "unpack",
]

"""The one contract: every message that travels on the bus.

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
    epoch        rises with every process that holds a name, see `epochs`: microseconds since 1970 at its start, or
                 one more than is known already. Higher fences off lower.
    time_left    seconds for which the gateway still waits, as of when the message was sent. A receiver counts them down
                 from the message's arrival on its own monotonic clock: wall clocks jump, and hosts disagree.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import starmap
from typing import Annotated, Any, ClassVar

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from radixmesh.shared.errors import ErrorCode, MessageError


def _column(dtype: str) -> Any:
    """Pydantic annotation for a 1-D array of `dtype`; read-only and zero-copy when it comes from bytes."""
    wanted = np.dtype(dtype)

    def validate(value: object) -> NDArray[Any]:
        if isinstance(value, bytes):
            if len(value) % wanted.itemsize:
                raise ValueError(f"{len(value)} bytes are no whole number of {wanted.name}")
            return np.frombuffer(value, wanted)
        try:
            return np.ascontiguousarray(value, wanted).reshape(-1)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not a column of {wanted.name}: {error}") from None

    return PlainValidator(validate), PlainSerializer(lambda array: array.tobytes(), return_type=bytes)


_I32, _U8, _U64, _F32 = (_column(dtype) for dtype in ("<i4", "|u1", "<u8", "<f4"))
Int32Column = Annotated[NDArray[np.int32], _I32[0], _I32[1]]
UInt8Column = Annotated[NDArray[np.uint8], _U8[0], _U8[1]]
UInt64Column = Annotated[NDArray[np.uint64], _U64[0], _U64[1]]
Float32Column = Annotated[NDArray[np.float32], _F32[0], _F32[1]]


_HEAD = 64
"""Bytes at the start of a packed message that hold its tag."""

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
UInt64 = Annotated[int, Field(ge=0, lt=2**64)]


def _empty(dtype: str) -> Any:
    return Field(default_factory=lambda: np.empty(0, dtype))


class Message(BaseModel):
    """Base of all messages. Equality is equality of the packed bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    VERSION: ClassVar[int] = 1
    TAG: ClassVar[str]

    _registry: ClassVar[dict[str, type["Message"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.TAG = cls.__name__
        Message._registry[cls.TAG] = cls

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and pack(self) == pack(other)

    __hash__ = None  # type: ignore[assignment]


class Part(BaseModel):
    """Base of the structures nested in messages."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, np.generic):
        return value.item()
    raise MessageError(f"cannot pack a {type(value).__name__}")


def pack(message: Message) -> bytes:
    """Packs a message as msgpack ``[tag, version, fields]``."""
    packed: bytes = msgpack.packb((message.TAG, message.VERSION, message.__dict__), default=_plain)
    return packed


def packed_size(part: Part) -> int:
    """Bytes that a part takes in a packed message."""
    return len(msgpack.packb(part.__dict__, default=_plain))


def unpack(data: bytes) -> Message:
    """Reads what `pack` wrote.

    Raises:
        MessageError: not msgpack, not of the form ``[tag, version, fields]``, an unknown tag or version, or a
            field that does not fit; the text names it.
    """
    try:
        envelope = msgpack.unpackb(data, strict_map_key=False)
    except Exception as error:  # msgpack raises a dozen unrelated types for malformed input
        raise MessageError(f"payload of {len(data)} bytes is not msgpack: {error}") from error
    if not (isinstance(envelope, list) and len(envelope) == 3 and isinstance(envelope[2], dict)):
        raise MessageError("payload is not of the form [tag, version, fields]")
    tag, version, fields = envelope
    kind = Message._registry.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise MessageError(f"unknown message {str(tag)[:80]!r}")
    if version != kind.VERSION:
        raise MessageError(f"{tag} has version {str(version)[:40]}; this process speaks version {kind.VERSION}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MessageError(f"{tag}.{where}: {first['msg']}") from error


def tag_of(data: bytes) -> str:
    """The tag of what `pack` wrote, without reading the rest; empty if there is none that we know."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(data[:_HEAD])
    try:
        tag = unpacker.unpack() if unpacker.read_array_header() == 3 else None
    except Exception:  # noqa: BLE001  msgpack raises a dozen unrelated types for malformed input
        return ""
    return tag if isinstance(tag, str) and tag in Message._registry else ""


class Task(StrEnum):
    """What is asked of a sequence."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    REWARD = "reward"


class Finish(IntEnum):
    """Why a choice ended. RUNNING means that it has not."""

    RUNNING = 0
    STOP = 1
    """End-of-sequence token, stop token id, or stop string."""
    LENGTH = 2
    """max_tokens, or the model's context, is used up."""
    CANCELLED = 3


MIN_REPETITION_PENALTY = 1e-6
"""Logits are divided by the penalty, as 32-bit floats: by much less than this they would not stay finite."""


class SamplingParams(Part):
    """How tokens are chosen and when a choice ends. Bounds are checked by the gateway."""

    n: Int64 = 1
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: Int64 = 0
    """0 means the whole vocabulary."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[Int64, float] = {}
    seed: UInt64 = 0
    """Unsigned 64 bit. The gateway draws one if the client gave none, so that a re-dispatch repeats it."""
    max_tokens: Int64 | None = None
    """Output tokens, those of earlier attempts counted in. None: up to the model's context length."""
    min_tokens: Int64 = 0
    stop: list[str] = []
    stop_token_ids: list[Int64] = []
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: Int64 | None = None
    """None: none wanted. k: the chosen token's log-probability and those of the k likeliest."""


class Work(Part):
    """What a request asks for. It goes round the ring as one piece; a replica may only lower `params.max_tokens`."""

    task: Task = Task.GENERATE
    params: SamplingParams = SamplingParams()
    lora: str = ""
    cache_salt: str = ""
    """Requests share cached prefixes only with the same salt."""
    priority: Int64 = 0
    """Higher goes first, under a priority policy."""


class Choice(Part):
    """One choice to run, with what earlier attempts already sent to the client."""

    index: Int64
    resumed: Int32Column = _empty("<i4")
    """Output token ids of earlier attempts, in order; the run goes on after them."""


# -- gateway -> tokenizer ---------------------------------------------------------------------------------------


class Submit(Message):
    """A request enters the ring. Exactly one of `text`, `token_ids` and `messages` is given."""

    VERSION: ClassVar[int] = 3  # 3: `work`, whose fields were the message's own before

    request_id: str
    attempt: Int64 = 0
    gateway_id: str
    model: str
    work: Work = Work()
    text: str | None = None
    token_ids: Int32Column | None = None
    messages: list[dict[str, Any]] | None = None
    """Chat messages, as OpenAI defines them, for the model's chat template."""
    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    separate_reasoning: bool = False
    """Of an answer to `messages`, tell the model's thoughts apart from its text, where its template knows any."""
    add_special_tokens: bool | None = None
    """Whether the encoded text gets what the tokenizer adds around texts; None: for `text` yes, for `messages` no."""
    choices: list[Choice] = []
    """Choices to run; empty means all n, from their start."""
    cut_to_fit: bool = False
    """`work.params.max_tokens` is not the client's wish: where the model's context is shorter, so is the output."""
    time_left: float


# -- tokenizer -> gateway, detokenizer, scheduler ---------------------------------------------------------------


class Routed(Message):
    """Tells the gateway where its request went, so that it notices when one of these dies."""

    request_id: str
    attempt: Int64
    replica_id: str
    replica_epoch: Int64
    detokenizer_id: str
    detokenizer_epoch: Int64
    prompt_tokens: Int64
    reason: str
    """Why this replica: `only`, `least_loaded`, `prefix`."""


class OpenText(Message):
    """Tells a detokenizer to expect a request's tokens."""

    VERSION: ClassVar[int] = 2  # 2: `time_left`, which was a deadline in Unix time before

    request_id: str
    attempt: Int64
    gateway_id: str
    prompt_tail: Int32Column
    """The prompt's last few token ids: the first output token's text can depend on them."""
    prompt_tokens: Int64
    choices: list[Choice]
    stop: list[str] = []
    min_tokens: Int64 = 0
    """Stop strings are not looked for in the text of this many first output tokens."""
    skip_special_tokens: bool = True
    reasoning_tags: tuple[str, str] | None = None
    """Opening and closing tag of the model's thoughts, if these are to be told apart from its text."""
    reasoning_open: bool = False
    """The prompt ends inside of thoughts."""
    time_left: float


class Admit(Message):
    """A tokenized request, for the replica that was chosen."""

    VERSION: ClassVar[int] = 3  # 3: `work`, whose fields were the message's own before

    request_id: str
    attempt: Int64
    gateway_id: str
    detokenizer_id: str
    replica_epoch: Int64
    """The scheduler's epoch that the tokenizer saw; a newer scheduler answers REPLICA_LOST."""
    work: Work
    prompt_ids: Int32Column
    choices: list[Choice]
    time_left: float


# -- scheduler <-> model worker ---------------------------------------------------------------------------------


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
    length_keyed_above: Int64 = 0
    """Prompts of more tokens than this share cached pages only with prompts of the very same length (dynamic NTK
    rotary embeddings depend on it); 0: no such bound."""


class Refused(Message):
    """The answer to a request that is not granted."""

    reason: str
    epoch: Int64 = -1
    """A claim with an epoch above this one might be granted; -1: the epoch is not the reason."""


class Admission(Part):
    """A sequence takes a slot. Its pages come in the same plan's grants."""

    slot: Int64
    request_id: str
    choice: Int64
    attempt: Int64
    detokenizer_id: str
    work: Work
    prompt_ids: Int32Column
    """Prompt, then the `resumed` output tokens of earlier attempts."""
    resumed: Int64 = 0
    """How many of `prompt_ids`, at its end, are output. New tokens are numbered from here."""
    computed_tokens: Int64 = 0
    """How many of `prompt_ids`, at its start, already have their KV in the granted pages."""
    cached_tokens: Int64 = 0
    """What usage tells: `computed_tokens` of the first admission. After a retraction there may be more or fewer."""
    traceparent: str = ""


@dataclass(slots=True)
class Span:
    """What a forward pass does for one sequence."""

    slot: int
    start: int
    """Position of the first token. In `prompt_ids`, where it is; behind them, the furthest that it can be: the worker
    goes on from where the sequence's accepted tokens end."""
    count: int
    """Tokens whose KV is computed; 1 behind the prompt."""
    sampled: bool
    """Whether the tokens that follow are sampled: from the end of `prompt_ids` on."""
    drafts: int
    """Guesses at those tokens that the worker may verify in the same pass, at most; the pages for them are granted."""


class StepPlan(Message):
    """What a worker group does in one step, in this order: releases, admissions, grants, then the forward passes.

    The first pass runs the spans, at most one a slot; in each of the `steps - 1` further ones, the sampled spans go on
    behind what they have sampled.
    """

    VERSION: ClassVar[int] = 5  # 5: grants by group

    epoch: Int64
    seq: Int64
    """0, 1, 2, ... within an epoch. Plan 0 resets the worker. A gap is a failure to recover from."""
    releases: Int32Column = _empty("<i4")
    """Slots that are given back."""
    admissions: list[Admission] = []
    grant_slots: Int32Column = _empty("<i4")
    grant_groups: Int32Column = _empty("<i4")
    """Which of `Claimed.groups` the pages are of."""
    grant_starts: Int32Column = _empty("<i4")
    """Where in the slot's block table the first one goes; what a window no longer shows has no pages."""
    grant_counts: Int32Column = _empty("<i4")
    grant_pages: Int32Column = _empty("<i4")
    """Ragged by `grant_counts`: page ids, one behind the other."""
    span_slots: Int32Column = _empty("<i4")
    """The columns of the plan's spans: see `Span`."""
    span_starts: Int32Column = _empty("<i4")
    span_counts: Int32Column = _empty("<i4")
    span_sampled: UInt8Column = _empty("|u1")
    span_drafts: Int32Column = _empty("<i4")
    steps: Int64 = 1

    def spans(self) -> Iterator[Span]:
        """Raises ValueError, at the first span without all five, if the columns differ in length."""
        columns = (self.span_slots, self.span_starts, self.span_counts, self.span_sampled, self.span_drafts)
        return starmap(Span, zip(*(column.tolist() for column in columns), strict=True))


class StepReport(Message):
    """What came of one `StepPlan`. One row per span of the plan, in its order."""

    VERSION: ClassVar[int] = 2  # 2: a row for each span, where each slot that had sampled had one before

    epoch: Int64
    seq: Int64
    accepted: Int32Column = _empty("<i4")
    """Output tokens that the span's sequence went on by: at most ``steps * (1 + drafts)`` if it was to be sampled, 0 if
    not, or if it had ended."""
    tokens: Int32Column = _empty("<i4")
    """Ragged by `accepted`."""
    finish: UInt8Column = _empty("|u1")
    """`Finish` of each row after its last token."""
    failed_slots: Int32Column = _empty("<i4")
    failures: list[str] = []
    """One sentence for each of `failed_slots`; these are at their end, behind what they were accepted for."""
    step_us: Int64 = 0
    """Time from the start of the plan's first forward pass to the last one's tokens, microseconds."""
    gap_us: Int64 = 0
    """Time the worker was idle between the previous plan and this one, microseconds, 0 if nothing ran then."""
    vectors: bytes = b""
    """float32 rows of embeddings or scores, for tasks other than GENERATE."""


# -- model worker -> detokenizer -> gateway ---------------------------------------------------------------------


class TokenBatch(Message):
    """The tokens of some steps of one plan for one detokenizer. One row per choice."""

    replica_id: str
    epoch: Int64
    request_ids: list[str]
    choices: Int32Column
    attempts: Int32Column
    first_index: Int32Column
    """Output index of the row's first token. A receiver drops what it has seen; a gap is a failure."""
    counts: Int32Column
    tokens: Int32Column
    """Ragged by `counts`."""
    finish: UInt8Column
    """`Finish` of each row after its last token."""
    cached_tokens: Int32Column
    """Prompt tokens that came from the prefix cache."""
    stop_tokens: Int32Column = _empty("<i4")
    """The stop token id that ended the row, or -1."""
    traceparents: list[str] = []
    """Empty, or one per row: the decode span's context on a row's first batch, else an empty string."""
    logprobs: Float32Column = _empty("<f4")
    """Empty, or one per token of `tokens`; NaN where none was asked for."""
    top_counts: Int32Column = _empty("<i4")
    """Empty, or per token of `tokens` how many of `top_ids` and `top_logprobs` belong to it."""
    top_ids: Int32Column = _empty("<i4")
    top_logprobs: Float32Column = _empty("<f4")


class TextBatch(Message):
    """Text for one gateway. One row per choice. Rows with a `finish` are the choice's terminal message."""

    detokenizer_id: str
    request_ids: list[str]
    choices: Int32Column
    attempts: Int32Column
    first_index: Int32Column
    counts: Int32Column
    tokens: Int32Column
    """Ragged by `counts`: the ids behind the text, for a re-dispatch."""
    texts: list[str]
    """Text to pass on; may be empty while a character or a stop string is incomplete."""
    reasoning: list[str] = []
    """Empty, or per row the model's thoughts to pass on, which go before its text."""
    finish: UInt8Column
    stop_reasons: list[str | int | None]
    """The stop string or token id that ended the row, if one did."""
    prompt_tokens: Int32Column
    cached_tokens: Int32Column
    logprobs: Float32Column = _empty("<f4")
    top_counts: Int32Column = _empty("<i4")
    top_ids: Int32Column = _empty("<i4")
    top_logprobs: Float32Column = _empty("<f4")


class RequestFailed(Message):
    """The terminal message of a request that cannot go on. Any service may send it to the gateway."""

    request_id: str
    attempt: Int64
    choice: Int64 = -1
    code: ErrorCode
    message: str
    param: str | None = None
    retry_after: float | None = None
    """Seconds."""
    service: str = ""
    """Who says so."""


class Cancel(Message):
    """Choices that nobody waits for any more. Attempts up to and including the given one are meant."""

    request_ids: list[str]
    choices: Int32Column
    attempts: Int32Column


# -- presence, events and control -------------------------------------------------------------------------------


class State(StrEnum):
    """How far a service is."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Presence(Message):
    """A heartbeat: who is there, since when, and how they do."""

    service: str = Field(min_length=1)
    instance: str = Field(min_length=1)
    """Unique in the mesh. A scheduler's instance is its replica id."""
    epoch: Int64
    host: str = ""
    state: State
    detail: str = ""
    """Why not ready, for people."""
    model: str = ""
    interval: float = 1.0
    """Seconds between heartbeats; a receiver gives up after `presence.MISSED_BEATS` of them."""
    attributes: dict[str, Any] = {}
    """Load and limits, by service: see each service's `presence_attributes`."""


class Outdated(Message):
    """Tells the sender of a `Presence` that nobody heeds it: a higher epoch is known under its name."""

    instance: str
    epoch: Int64
    """The highest that is known."""
    quiet: float | None = None
    """Seconds since that one was last heard of; None if it has gone."""


class WhoIsThere(Message):
    """Asks everyone to send a `Presence` now."""


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
    stored: UInt64Column = _empty("<u8")
    removed: UInt64Column = _empty("<u8")


class KvSnapshotRequest(Message):
    """Asks a scheduler to publish its whole prefix cache as one `KvEvents` with `cleared` set."""


class FlushCache(Message):
    """Asks a scheduler to forget its prefix cache. Answered by `CacheFlushed`."""


class CacheFlushed(Message):
    """How many pages came free, and how many are still held by running requests."""

    pages_freed: Int64
    pages_in_use: Int64

"""A request's way round the ring, its failure and its cancel."""

from typing import Any, ClassVar

from radixmesh.shared.errors import ErrorCode
from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Int32Column, Int64
from radixmesh.shared.messages.work import Choice, Work


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

    @classmethod
    def of(cls, *entries: tuple[str, int, int]) -> "Cancel":
        """One for each (request_id, choice, attempt)."""
        request_ids, choices, attempts = (list(column) for column in zip(*entries, strict=True))
        return cls.model_validate({"request_ids": request_ids, "choices": choices, "attempts": attempts})

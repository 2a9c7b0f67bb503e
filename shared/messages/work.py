"""What is asked for: the parts that a request has in all messages that carry it."""

from enum import IntEnum, StrEnum

from radixmesh.shared.messages.codec import Part
from radixmesh.shared.messages.columns import Int32Column, Int64, UInt64, empty_column


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
    resumed: Int32Column = empty_column("<i4")
    """Output token ids of earlier attempts, in order; the run goes on after them."""

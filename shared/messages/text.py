"""What was generated: model worker to detokenizer to gateway."""

from radixmesh.shared.messages.codec import Message
from radixmesh.shared.messages.columns import Float32Column, Int32Column, Int64, UInt8Column, empty_column


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
    stop_tokens: Int32Column = empty_column("<i4")
    """The stop token id that ended the row, or -1."""
    traceparents: list[str] = []
    """Empty, or one per row: the decode span's context on a row's first batch, else an empty string."""
    logprobs: Float32Column = empty_column("<f4")
    """Empty, or one per token of `tokens`; NaN where none was asked for."""
    top_counts: Int32Column = empty_column("<i4")
    """Empty, or per token of `tokens` how many of `top_ids` and `top_logprobs` belong to it."""
    top_ids: Int32Column = empty_column("<i4")
    top_logprobs: Float32Column = empty_column("<f4")


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
    logprobs: Float32Column = empty_column("<f4")
    top_counts: Int32Column = empty_column("<i4")
    top_ids: Int32Column = empty_column("<i4")
    top_logprobs: Float32Column = empty_column("<f4")

"""What a face hands in: one prompt, with all that is wanted of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radixmesh.shared.messages import Work


@dataclass(frozen=True)
class Prompt:
    """One prompt for the ring, before it has a name and a deadline. One of text, token_ids and messages is given."""

    model: str
    """As the client calls it; empty for the one that is served."""
    work: Work
    chosen: frozenset[str] = frozenset()
    """Sampling fields that the client has set; the model's own defaults stand for the others."""
    text: str | None = None
    token_ids: NDArray[np.int32] | None = None
    messages: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    separate_reasoning: bool = False
    add_special_tokens: bool | None = None
    cut_to_fit: bool = False
    """max_tokens is a default, which no client should be refused for."""

    @property
    def operation(self) -> str:
        """The gen_ai name of what is asked."""
        return "text_completion" if self.messages is None else "chat"

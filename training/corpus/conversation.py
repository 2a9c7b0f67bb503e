"""What a training conversation is, and the endless, seeded stream of them (``conversations``)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": str}``, an assistant's with optional
``"tool_calls": [{"type": "function", "function": {"name": str, "arguments": dict}}]`` and ``"reasoning_content": str``.
"""

Tool = dict[str, Any]
"""A tool in the OpenAI shape: ``{"type": "function", "function": {"name", "description", "parameters"}}``."""

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation: its kind (``mixed`` where several kinds were joined), messages and tools."""

    kind: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


def conversations(seed: int, split: Split) -> Iterator[Conversation]:
    """An endless stream of conversations; the same seed and split give the same stream."""
    from training.corpus.mixture import compose

    rng = random.Random(f"{split}:{seed}")
    while True:
        yield compose(rng, split)

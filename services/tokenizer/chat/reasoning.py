"""How a model marks its thoughts: which tags it writes, and whether a prompt has opened them for it."""

from collections.abc import Iterable
from typing import NamedTuple

AUTO, NONE = "auto", "none"


class ReasoningTags(NamedTuple):
    """What stands before and behind a model's thoughts."""

    begin: str
    end: str

    def opened(self, prompt: str, begun: str = "") -> bool:
        """Whether `prompt` ends inside of thoughts.

        Args:
            begun: the beginning of the answer, where the client has given one. What stands before it is a
                conversation, in which tags may be quoted.
        """
        return prompt.rstrip().endswith(self.begin) or begun.rfind(self.begin) > begun.rfind(self.end)


_THINK = ReasoningTags("<think>", "</think>")
TAGS = {
    "think": _THINK,
    "deepseek-r1": _THINK,
    "qwen3": _THINK,
    "glm45": _THINK,
    "kimi-k2": _THINK,
    "kimi": ReasoningTags("◁think▷", "◁/think▷"),
    "magistral": ReasoningTags("[THINK]", "[/THINK]"),
    "seed": ReasoningTags("<seed:think>", "</seed:think>"),
}
"""By the names that other servers know them by."""


def parser_name(value: str) -> str:
    """`value` as the name of a parser: what `reasoning_tags` takes. Raises ValueError."""
    name = value.lower().replace("_", "-")
    if name not in (AUTO, NONE, *TAGS):
        raise ValueError(f"there is no {value!r}; there are {', '.join((AUTO, NONE, *TAGS))}")
    return name


def reasoning_tags(parser: str, templates: Iterable[str]) -> ReasoningTags | None:
    """The tags of a model with these chat templates; None if its thoughts are not to be told apart.

    Args:
        parser: ``auto`` for the tags that the templates write, ``none``, or a name in `TAGS`.
    """
    if parser != AUTO:
        return TAGS.get(parser)
    sources = list(templates)
    return next((tags for tags in TAGS.values() if any(tags.end in source for source in sources)), None)

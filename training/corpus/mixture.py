"""The mixture: how often each kind occurs, and how exchanges, system prompts and styles make a conversation."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from training.corpus import (
    arithmetic,
    extraction,
    facts,
    names,
    python_code,
    sequences,
    smalltalk,
    stories,
    text_tasks,
    thinking,
)
from training.corpus.conversation import Conversation, Message, Split
from training.corpus.tool_calls import tool_conversation
from training.corpus.wording import Exchange

Maker = Callable[[random.Random, Split], Exchange]
Makers = tuple[tuple[Maker, float], ...]

KINDS: dict[str, Makers] = {
    "facts": facts.MAKERS,
    "arithmetic": arithmetic.MAKERS,
    "json": extraction.MAKERS,
    "sequences": sequences.MAKERS,
    "rewrite": text_tasks.MAKERS,
    "smalltalk": smalltalk.MAKERS,
    "stories": stories.MAKERS,
    "python": python_code.MAKERS,
}
# Shares of exchanges, chosen so that the shares of answer tokens come out as the README's table says.
SHARES = {
    "facts": 32.0,
    "arithmetic": 22.0,
    "json": 18.0,
    "sequences": 8.5,
    "rewrite": 8.0,
    "smalltalk": 5.0,
    "stories": 0.7,
    "python": 1.4,
}
# Shares of whole conversations of their own make; the rest is plain talk of joined exchanges.
_TOOLS, _THINK, _SHORT, _JSON_API = 0.05, 0.08, 0.10, 0.09

PLAIN_SYSTEM = (
    "You are a helpful assistant.",
    "You are RadixMesh Tiny.",
    "You are a small and friendly assistant.",
    "Answer the questions.",
    "You are a helpful assistant. Answer in full sentences.",
    "You are a kind assistant.",
    "Be brief and correct.",
    "You are an assistant that answers simple questions.",
    "You are RadixMesh Tiny, a helpful assistant.",
    "Help the user.",
)
SHORT_SYSTEM = (
    "Answer in one word.",
    "Answer with one word only.",
    "Answer with the answer only.",
    "Give only the answer.",
    "You answer with one word.",
    "Answer with a single word or number.",
    "Only the answer, no sentence.",
)
SHORT_SUFFIX = (
    " Answer in one word.",
    " One word only.",
    " Only the answer, please.",
    " Answer with one word.",
    " Give only the answer.",
    " Answer with a single word or number.",
    " Just the answer.",
    " Answer with the answer only.",
)
JSON_SYSTEM = (
    "You are a JSON API. Answer only with JSON.",
    "Answer only with JSON.",
    "You are a JSON API.",
    "Always answer with a JSON object.",
    "You are an API that returns JSON.",
    "Answer in JSON.",
)
JSON_SUFFIX = (
    ' Answer in JSON with the key "{k}".',
    ' Answer in JSON with key "{k}".',
    " Answer in JSON with the key {k}.",
    " Answer as JSON with key {k}.",
    ' Return a JSON object with the key "{k}".',
    ' Give me a JSON object with the key "{k}".',
    " Return JSON with key {k}.",
)


def make(rng: random.Random, split: Split, kind: str) -> Exchange:
    """One exchange of a kind."""
    makers = KINDS[kind]
    return rng.choices([m for m, _ in makers], [w for _, w in makers])[0](rng, split)


def _any(rng: random.Random, split: Split) -> Exchange:
    return make(rng, split, rng.choices(list(SHARES), list(SHARES.values()))[0])


def _answered_by(rng: random.Random, split: Split, form: str) -> Exchange:
    """A fact or sum that has the form ("short" or "json")."""
    while True:
        found = make(rng, split, rng.choice(("facts", "facts", "arithmetic")))
        if getattr(found, form) is not None:
            return found


def _pair(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def ending(question: str) -> str:
    """The question with a mark at its end, so that a sentence can follow."""
    return question if question[-1] in "?.!:=" else question + "."


def in_short(rng: random.Random, split: Split, *, suffix: bool) -> list[Message]:
    """A question answered by the bare answer."""
    found = _answered_by(rng, split, "short")
    return _pair(ending(found.question) + rng.choice(SHORT_SUFFIX) if suffix else found.question, str(found.short))


def in_json(rng: random.Random, split: Split) -> list[Message]:
    """A fact or sum asked for as a JSON object with one key, or as one of subject and answer."""
    if rng.random() < 0.25:
        found = facts.fact_object(rng, split)
        return _pair(found.question, found.answer)
    found = _answered_by(rng, split, "json")
    key = next(iter(json_keys(str(found.json))))
    return _pair(ending(found.question) + rng.choice(JSON_SUFFIX).replace("{k}", key), str(found.json))


def json_keys(text: str) -> list[str]:
    return list(json.loads(text))


def _system(rng: random.Random, prompts: tuple[str, ...], chance: float) -> list[Message]:
    return [{"role": "system", "content": rng.choice(prompts)}] if rng.random() < chance else []


def _count(rng: random.Random) -> int:
    return rng.choices((1, 2, 3, 4, 5, 6), (45, 20, 14, 10, 6, 5))[0]


def _short(rng: random.Random, split: Split) -> Conversation:
    suffix = rng.random() < 0.5
    messages = _system(rng, PLAIN_SYSTEM, 0.15) if suffix else _system(rng, SHORT_SYSTEM, 1.0)
    for _ in range(_count(rng)):
        if suffix and rng.random() < 0.3:
            messages += _answered_by(rng, split, "short").rendered()
        else:
            messages += in_short(rng, split, suffix=suffix)
    return Conversation("short", tuple(messages))


def _json_api(rng: random.Random, split: Split) -> Conversation:
    messages = _system(rng, JSON_SYSTEM, 0.5)
    for _ in range(rng.choice((1, 1, 2, 3))):
        messages += in_json(rng, split) if rng.random() < 0.6 else make(rng, split, "json").rendered()
    return Conversation("json", tuple(messages))


def _think(rng: random.Random, split: Split) -> Conversation:
    roll = rng.random()
    found = make_thought(rng, split)
    messages = _system(rng, thinking.THINK_SYSTEM, 1.0) if roll < 0.35 else _system(rng, PLAIN_SYSTEM, 0.1)
    question = ending(found.question) + rng.choice(thinking.CUES) if 0.35 <= roll < 0.7 else found.question
    reply: Message = {"role": "assistant", "content": found.answer, "reasoning_content": found.reasoning}
    return Conversation("think", (*messages, {"role": "user", "content": question}, reply))


def make_thought(rng: random.Random, split: Split) -> Exchange:
    makers = thinking.MAKERS
    return rng.choices([m for m, _ in makers], [w for _, w in makers])[0](rng, split)


def _talk(rng: random.Random, split: Split) -> Conversation:
    messages = _system(rng, PLAIN_SYSTEM, 0.25)
    asked = [_any(rng, split) for _ in range(_count(rng))]
    asked = [
        e for i, e in enumerate(asked) if not (names.names_somebody(e) and any(map(names.names_somebody, asked[:i])))
    ]
    if len(asked) > 1 and rng.random() < 0.08:
        met, recalled = names.meeting(rng, split)
        asked = [met, *(e for e in asked[1:] if not names.names_somebody(e)), recalled]
    elif rng.random() < 0.005 and not any(map(names.names_somebody, asked)):
        asked.append(names.untold(rng, split))
    kinds = {e.kind for e in asked}
    for exchange in asked:
        messages += exchange.rendered()
    return Conversation(kinds.pop() if len(kinds) == 1 else "mixed", tuple(messages))


def compose(rng: random.Random, split: Split) -> Conversation:
    """One conversation of the mixture."""
    roll = rng.random()
    if roll < _TOOLS:
        messages, tools = tool_conversation(rng, split)
        return Conversation("tools", (*_system(rng, PLAIN_SYSTEM, 0.2), *messages), tools)
    if roll < _TOOLS + _THINK:
        return _think(rng, split)
    if roll < _TOOLS + _THINK + _SHORT:
        return _short(rng, split)
    if roll < _TOOLS + _THINK + _SHORT + _JSON_API:
        return _json_api(rng, split)
    return _talk(rng, split)

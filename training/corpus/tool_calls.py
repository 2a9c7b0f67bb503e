"""Conversations with tools: one is called and its result told, or none is needed."""

from __future__ import annotations

import json
import random

from training.corpus.conversation import Message, Split, Tool
from training.corpus.facts import fact
from training.corpus.smalltalk import talk
from training.corpus.tool_invented import generic
from training.corpus.tool_specs import FIXED, ToolSpec
from training.corpus.wording import Exchange, decorate, fill, instance


def _spec(rng: random.Random) -> ToolSpec:
    return rng.choice(FIXED) if rng.random() < 0.6 else generic(rng)


def _call(rng: random.Random, split: Split, spec: ToolSpec) -> list[Message]:
    """Question, call, result and answer."""
    arguments = instance(rng, split, spec.arguments)
    result = spec.result(rng, arguments)
    template = spec.asked.pick(rng, split)
    question = fill(decorate(rng, template) if rng.random() < 0.4 else template, **arguments)
    for name, value in arguments.items():  # a template in lower case still has its slots
        question = question.replace("{" + name.lower() + "}", str(value))
    call = {"type": "function", "function": {"name": spec.name, "arguments": arguments}}
    return [
        {"role": "user", "content": question[:1].upper() + question[1:]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": json.dumps(result)},
        {"role": "assistant", "content": fill(spec.told, **{**arguments, **result})},
    ]


def tool_conversation(rng: random.Random, split: Split) -> tuple[list[Message], tuple[Tool, ...]]:
    """One to three questions over one to three tools; now and then one that needs no tool."""
    specs: list[ToolSpec] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        spec = _spec(rng)
        if all(spec.name != other.name for other in specs):
            specs.append(spec)
    messages: list[Message] = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        if rng.random() < 0.2:
            messages += (fact if rng.random() < 0.6 else talk)(rng, split).rendered()
        else:
            messages += _call(rng, split, rng.choice(specs))
    return messages, tuple(spec.schema() for spec in specs)


def tool_question(rng: random.Random, split: Split) -> Exchange:
    """One question that one of the tools answers, up to the call."""
    first, second = _spec(rng), _spec(rng)
    specs = [first] if first.name == second.name or rng.random() < 0.5 else [first, second]
    messages = _call(rng, split, first)
    call = json.dumps(messages[1]["tool_calls"][0]["function"])
    rng.shuffle(specs)
    return Exchange("tools", messages[0]["content"], call, tools=tuple(spec.schema() for spec in specs))

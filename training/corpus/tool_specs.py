"""The tools the model learns to call: their schema, how they are asked for, what they return and how that is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training.corpus import pools as p
from training.corpus.conversation import Tool
from training.corpus.wording import Wordings, wordings

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """``result`` makes what the tool returns; ``told`` says it in words, with the slots of arguments and result."""

    name: str
    description: str
    parameters: dict[str, str]
    arguments: Callable[[random.Random], Arguments]
    asked: Wordings
    result: Callable[[random.Random, Arguments], Arguments]
    told: str

    def schema(self) -> Tool:
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        parameters = {"type": "object", "properties": properties, "required": list(self.parameters)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


_OK: Callable[[random.Random, Arguments], Arguments] = lambda rng, a: {"status": "ok"}  # noqa: E731


def _calculated(rng: random.Random, arguments: Arguments) -> Arguments:
    left, sign, right = str(arguments["expression"]).split()
    a, b = int(left), int(right)
    return {"result": a + b if sign == "+" else a - b if sign == "-" else a * b}


_SKY = ["sunny", "rainy", "cloudy", "windy", "snowy", "foggy"]

FIXED: tuple[ToolSpec, ...] = (
    ToolSpec(
        "get_weather",
        "Get the weather of a city.",
        {"city": "string"},
        lambda rng: {"city": p.city(rng)},
        wordings(
            """What is the weather in {city}?
            What's the weather like in {city}?
            How is the weather in {city}?
            What is the weather like in {city} [today|now]?
            Tell me the weather in {city}.
            Get the weather for {city}.
            Weather in {city}?
            Is it [sunny|raining|warm|cold] in {city}?
            How warm is it in {city}?
            What is the temperature in {city}?
            I want to know the weather in {city}.
            Can you check the weather in {city}?""",
            """How is the weather in {city} today?
            Can you tell me the weather in {city}?
            How cold is it in {city}?""",
        ),
        lambda rng, a: {"temperature": rng.randint(-9, 35), "condition": rng.choice(_SKY)},
        "It is {temperature} degrees and {condition} in {city}.",
    ),
    ToolSpec(
        "get_time",
        "Get the time in a city.",
        {"city": "string"},
        lambda rng: {"city": p.city(rng)},
        wordings(
            """What time is it in {city}?
            What is the time in {city}?
            Tell me the time in {city}.
            How late is it in {city}?
            What is the time in {city} now?
            Get the time for {city}.
            Time in {city}?
            Can you check the time in {city}?
            I want to know the time in {city}.""",
            """Can you tell me the time in {city}?
            What time is it now in {city}?""",
        ),
        lambda rng, a: {"time": f"{rng.randint(0, 23)}:{rng.randint(10, 59)}"},
        "It is {time} in {city}.",
    ),
    ToolSpec(
        "calculate",
        "Calculate an expression.",
        {"expression": "string"},
        lambda rng: {"expression": f"{rng.randint(10, 999)} {rng.choice('+-*')} {rng.randint(2, 99)}"},
        wordings(
            """What is {expression}?
            How much is {expression}?
            Calculate {expression}.
            Compute {expression}.
            What is the result of {expression}?
            {expression} = ?
            Use the tool to calculate {expression}.
            Can you calculate {expression}?
            Please compute {expression}.
            Tell me what {expression} is.""",
            """Can you compute {expression}?
            Give me the result of {expression}.""",
        ),
        _calculated,
        "{expression} = {result}.",
    ),
    ToolSpec(
        "set_timer",
        "Set a timer.",
        {"minutes": "integer"},
        lambda rng: {"minutes": rng.randint(2, 90)},
        wordings(
            """Set a timer for {minutes} minutes.
            Set a timer of {minutes} minutes.
            Start a timer for {minutes} minutes.
            Timer for {minutes} minutes, please.
            I need a timer for {minutes} minutes.
            Please set a {minutes} minute timer.
            Wake me in {minutes} minutes.
            Can you set a timer for {minutes} minutes?
            {minutes} minutes on the timer, please.""",
            """Can you start a timer for {minutes} minutes?
            Please start a {minutes} minute timer.""",
        ),
        _OK,
        "The timer is set for {minutes} minutes.",
    ),
    ToolSpec(
        "send_message",
        "Send a message to a person.",
        {"to": "string", "text": "string"},
        lambda rng: {
            "to": p.first_name(rng),
            "text": rng.choice(
                (
                    f"I am in {p.city(rng)}",
                    "I am late",
                    "Happy birthday",
                    f"Please buy {p.word(rng)}",
                    "See you soon",
                    f"The {p.word(rng)} is here",
                )
            ),
        },
        wordings(
            """Send a message to {to}: {text}
            Send {to} the message "{text}".
            Write to {to}: {text}
            Tell {to}: {text}
            Please send "{text}" to {to}.
            Message to {to}: {text}
            Send this to {to}: {text}
            Write a message to {to}: {text}""",
            """Please write to {to}: {text}
            Can you send {to} this message: {text}""",
        ),
        _OK,
        "I sent your message to {to}.",
    ),
    ToolSpec(
        "play_music",
        "Play a song.",
        {"title": "string"},
        lambda rng: {"title": p.title(rng)},
        wordings(
            """Play {title}.
            Play the song {title}.
            Play "{title}".
            Please play {title}.
            I want to hear {title}.
            Can you play {title}?
            Start the song {title}.
            Put on {title}.""",
            """Can you play the song {title}?
            I want to hear the song {title}.""",
        ),
        _OK,
        "Now playing {title}.",
    ),
    ToolSpec(
        "search",
        "Search the web.",
        {"query": "string"},
        lambda rng: {"query": f"{rng.choice(p.ADJECTIVES)} {p.word(rng)}"},
        wordings(
            """Search for {query}.
            Search the web for {query}.
            Find {query} on the web.
            Look up {query}.
            Please search for {query}.
            Can you search for {query}?
            Look for {query} on the web.
            Do a search for {query}.""",
            """Can you look up {query}?
            Please search the web for {query}.""",
        ),
        lambda rng, a: {"results": rng.randint(1, 900)},
        "I found {results} results for {query}.",
    ),
    ToolSpec(
        "convert_currency",
        "Convert an amount of money.",
        {"amount": "integer", "source": "string", "target": "string"},
        lambda rng: dict(
            zip(
                ("amount", "source", "target"),
                (rng.randint(1, 900), *rng.sample(["USD", "EUR", "GBP", "JPY", "CHF"], 2)),
                strict=True,
            )
        ),
        wordings(
            """Convert {amount} {source} to {target}.
            How much is {amount} {source} in {target}?
            What is {amount} {source} in {target}?
            Change {amount} {source} to {target}.
            {amount} {source} in {target}?
            Please convert {amount} {source} to {target}.
            Turn {amount} {source} into {target}.""",
            """Can you convert {amount} {source} to {target}?
            Tell me how much {amount} {source} is in {target}.""",
        ),
        lambda rng, a: {"amount_out": rng.randint(1, 9000)},
        "{amount} {source} is {amount_out} {target}.",
    ),
    ToolSpec(
        "turn_on_light",
        "Turn on the light of a room.",
        {"room": "string"},
        lambda rng: {"room": rng.choice("kitchen garden bedroom office hall bathroom garage cellar".split())},
        wordings(
            """Turn on the light in the {room}.
            Switch on the light in the {room}.
            Light on in the {room}, please.
            It is dark in the {room}.
            Please turn on the {room} light.
            I need light in the {room}.
            Can you turn on the light in the {room}?
            Make light in the {room}.""",
            """Please switch on the {room} light.
            Can you make light in the {room}?""",
        ),
        _OK,
        "The light in the {room} is on.",
    ),
)

"""The flags of `radixmesh bench`."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _integer(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return parse


def _number(*, above: float = -math.inf, at_least: float = -math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > above and value >= at_least):
            limit = f"above {above:g}" if above > at_least else f"of at least {at_least:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {limit}")
        return value

    return parse


_COUNT, _NATURAL, _POSITIVE = _integer(1), _integer(0), _number(above=0.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_server_arguments(parser.add_argument_group("server"))
    _add_load_arguments(parser.add_argument_group("load"))
    _add_request_arguments(parser.add_argument_group("requests"))
    _add_report_arguments(parser.add_argument_group("report"))


def _add_server_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--url", default="http://127.0.0.1:8000", help="of the server, without /v1 (default: %(default)s)")
    add("--model", help="default: the first of the server's /v1/models")
    add("--endpoint", choices=["completions", "chat"], default="completions")
    add("--api-key", help="default: $RADIXMESH_API_KEY")
    add("--timeout", type=_POSITIVE, default=600.0, metavar="S", help="seconds per request (default: %(default)g)")


def _add_load_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--requests", type=_COUNT, default=64, metavar="N", help="per run (default: %(default)s)")
    pace = group.add_mutually_exclusive_group()
    pace.add_argument("--concurrency", type=_COUNT, default=32, metavar="N", help="in flight (default: %(default)s)")
    pace.add_argument("--request-rate", type=_POSITIVE, metavar="R", help="instead: Poisson arrivals per second")
    add("--max-seconds", type=_POSITIVE, metavar="S", help="start no request after so long; those in flight finish")
    add("--warmup", type=_NATURAL, default=1, metavar="N", help="unmeasured requests first (default: %(default)s)")
    add("--repeats", type=_COUNT, default=1, metavar="N", help="runs, each with prompts of its own; reports the spread")
    add("--seed", type=_NATURAL, default=0, help="of prompts, lengths and arrivals (default: %(default)s)")


def _add_request_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    for what, tokens, text in (("input", 128, "prompt tokens"), ("output", 64, "tokens to generate")):
        add(f"--{what}-len", type=_COUNT, default=tokens, metavar="N", help=f"{text} (default: %(default)s)")
        text = "instead: uniform, both included"
        add(f"--{what}-len-range", type=_COUNT, nargs=2, metavar=("LOW", "HIGH"), help=text)
    text = "tokens that a group of prompts begins with, before --input-len"
    add("--shared-prefix-len", type=_NATURAL, default=0, metavar="N", help=text)
    add("--shared-prefixes", type=_COUNT, default=1, metavar="N", help="such groups (default: %(default)s)")
    add("--warm-prefixes", action="store_true", help="send each shared prefix once before each run")
    add("--prompt", choices=["ids", "text"], help="default: ids (exact lengths) for completions, text for chat")
    text = "ids are below it (default: the tokenizer's, else 1000 or, if that is less, the server's)"
    add("--vocab-size", type=_integer(2), metavar="N", help=text)
    add("--tokenizer", type=Path, metavar="PATH", help="tokenizer.json or its folder: makes text lengths exact")
    add("--temperature", type=_number(at_least=0.0), default=0.0, help="(default: %(default)g)")
    add("--no-ignore-eos", action="store_true", help="do not send ignore_eos: answers may end early")
    add("--extra-body", type=_json_object, default={}, metavar="JSON", help="fields to add to each request")


def _add_report_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--json", type=Path, metavar="FILE", help="write config and figures")
    add("--json-requests", action="store_true", help="and one entry per request")
    text = "CPU time of this process over the run (repeatable; Linux)"
    add("--pid-cpu", type=_named_pid, action="append", default=[], metavar="NAME=PID", help=text)
    text = "CPU time of this process and all below it; also without those named by --pid-cpu"
    add("--cpu-of-tree", type=_COUNT, metavar="PID", help=text)


def _named_pid(text: str) -> tuple[str, int]:
    name, equals, pid = text.rpartition("=")
    if not (name and equals and pid.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PID")
    return name, int(pid)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value

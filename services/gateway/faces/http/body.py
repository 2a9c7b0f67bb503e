"""Request bodies: untrusted bytes to a JSON object."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from radixmesh.services.gateway.errors import invalid
from radixmesh.services.gateway.faces.http.errors import ProtocolError

MAX_DEPTH = 64
"""How deeply a body's objects and arrays may be nested."""

_BIG_BODY = 1 << 17
"""Bytes from which a body is parsed beside the event loop, so that streams go on meanwhile."""

T = TypeVar("T")

_NOT_FINITE = re.compile(rb"NaN|Infinity|\d[eE]\+?\d\d|\d{299}")
"""What a number may look like that is not finite as a float; most that do are, and harmless strings do too."""
_JSON_NAMES: dict[type, str] = {
    list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number", type(None): "null",
}  # fmt: skip
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def read_body(request: web.Request, read: Callable[[dict[str, Any]], T], timeout: float) -> T:
    """What `read` makes of the body, in a thread if that is big.

    Args:
        timeout: seconds in which the body must have come.

    Raises:
        RequestError: it is no JSON object that can be served, or `read` says so.
        web.HTTPRequestEntityTooLarge: it is larger than the application takes.
    """
    if request.content_type != "application/json":
        text = f"the body must be application/json, not {request.content_type[:80]!r}: set Content-Type"
        raise ProtocolError(415, text)
    # A small body may inflate to any size.
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProtocolError(415, "the body must not be compressed: leave out Content-Encoding")
    if request.content_length is not None and request.content_length > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length)
    try:
        async with asyncio.timeout(timeout):
            raw = await request.read()
    except TimeoutError:
        raise ProtocolError(408, f"the body did not come within {timeout:g} s") from None
    if len(raw) < _BIG_BODY:
        return read(parse_object(raw))
    return await asyncio.to_thread(lambda: read(parse_object(raw)))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Reads a request body that must be one JSON object in UTF-8.

    Raises:
        RequestError: INVALID_REQUEST, saying what is wrong and where.
    """
    try:
        data = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno} (character {error.pos})"
        raise invalid(f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's bound on the digits of an integer
        raise invalid("the body holds a number of too many digits") from None
    if not isinstance(data, dict):
        raise invalid(f"the body must be a JSON object, not {_JSON_NAMES[type(data)]}")
    _check_depth(data)
    if _NOT_FINITE.search(raw):
        _check_finite(data)
    if _SURROGATE.search(raw):
        _check_unicode(data)
    return data


def _check_finite(data: dict[str, Any]) -> None:
    """Python reads NaN and Infinity, and 1e999 as infinity; JSON has none of them. Call after `_check_depth`."""
    level: list[tuple[str, Any]] = list(data.items())
    while level:
        for path, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                said = "NaN" if math.isnan(value) else "Infinity"
                raise invalid(f"{path[:200]}: must be a finite number, not {said}", path[:200])
        level = [
            (f"{path}.{name}", item)
            for path, value in level
            if isinstance(value, (dict, list))
            for name, item in (value.items() if isinstance(value, dict) else enumerate(value))
        ]


def _check_depth(data: object) -> None:
    """A loop, not a recursion; one round a level."""
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Exception:
    return invalid(f"the body is nested too deeply: the limit is {MAX_DEPTH} levels")


def _check_unicode(data: object) -> None:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise invalid(f"the body holds half of a surrogate pair: {error.object[error.start]!r}") from None

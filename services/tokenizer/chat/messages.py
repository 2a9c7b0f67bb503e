"""Chat messages as OpenAI defines them, in the form that chat templates expect.

Content parts become a string, which is what templates for text models want; the arguments of tool calls, JSON text from
OpenAI's clients, become an object; and the one call of the old ``function_call`` becomes a tool call, its answer in the
role `function` a tool's, because today's templates pass over any other. Nothing is added: a template may ask whether a
message has content, or a name, and what the client left out, or gave as null, is not there.
"""

import json
from collections.abc import Sequence
from typing import Any

from radixmesh.shared.errors import ErrorCode, RequestError


def refused(message: str, param: str) -> RequestError:
    """A chat that cannot be rendered."""
    return RequestError(ErrorCode.INVALID_REQUEST, message, param=param)


def plain_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`messages` as text models' templates expect them.

    Raises:
        RequestError: a content part that is not text, or a tool call whose arguments are not a JSON object.
    """
    return [_plain_message(message, f"messages.{index}") for index, message in enumerate(messages)]


def _plain_message(message: dict[str, Any], where: str) -> dict[str, Any]:
    plain = dict(message)
    if isinstance(plain.get("content"), list):
        plain["content"] = "\n".join(
            _part_text(part, f"{where}.content.{index}") for index, part in enumerate(plain["content"])
        )
    if plain.get("role") == "function":
        plain["role"] = "tool"
    if isinstance(call := plain.get("function_call"), dict) and not plain.get("tool_calls"):
        del plain["function_call"]
        plain["tool_calls"] = [{"type": "function", "function": call}]
    if plain.get("tool_calls") == []:
        del plain["tool_calls"]  # servers answer so, clients send it back, and templates ask whether there are calls
    if isinstance(plain.get("tool_calls"), list):
        plain["tool_calls"] = [
            _plain_call(call, f"{where}.tool_calls.{index}") for index, call in enumerate(plain["tool_calls"])
        ]
    return plain


def _part_text(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) and kind in ("text", None) else None
    if not isinstance(text, str):
        raise refused(f"content of type {str(kind)[:40]!r} is not supported by this model: it takes text", where)
    return text


def _plain_call(call: object, where: str) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise refused(f"the arguments of a tool call are not JSON: {error}", f"{where}.function.arguments") from error
    if not isinstance(parsed, dict):
        raise refused("the arguments of a tool call are not a JSON object", f"{where}.function.arguments")
    return {**call, "function": {**function, "arguments": parsed}}

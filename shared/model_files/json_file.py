"""JSON files that come with a model. Anyone may have written them, with any editor."""

import json
from pathlib import Path
from typing import Any

from radixmesh.shared.errors import ModelLoadError


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`, which may be in UTF-8, 16 or 32 and begin with a byte order mark.

    Raises:
        ModelLoadError: naming the file, if it cannot be read, is not JSON, or holds something else.
    """
    try:
        raw = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{file}: is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ModelLoadError(f"{file}: must hold a JSON object, not {type(raw).__name__}")
    return raw


def optional_object(file: Path) -> dict[str, Any]:
    """`read_object`, or an empty one if there is no such file."""
    return read_object(file) if file.is_file() else {}


def whole(value: object) -> int | None:
    """The integer that a value is, if it is one; files written by numpy or JavaScript tools may say 4096.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

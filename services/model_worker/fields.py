"""Checked reading of JSON: a wrong or missing value becomes a `ModelLoadError` naming file and field."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radixmesh.services.model_worker.errors import ModelLoadError

_REQUIRED: Any = object()


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadError(file, "", f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelLoadError(file, "", f"is not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ModelLoadError(file, "", f"must hold a JSON object, not {type(raw).__name__}")
    return raw


class Fields:
    """Typed look-ups in one JSON object. A `null` counts as absent, as it does in Hugging Face configs."""

    def __init__(self, raw: Mapping[str, Any], file: Path, prefix: str = "") -> None:
        self.raw = raw
        self.file = file
        self.prefix = prefix

    def error(self, name: str, problem: str) -> ModelLoadError:
        return ModelLoadError(self.file, f"{self.prefix}{name}", problem)

    def has(self, name: str) -> bool:
        return self.raw.get(name) is not None

    def _get(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise self.error(name, "is missing")
        return default

    def integer(self, name: str, default: Any = _REQUIRED, minimum: int = 1) -> int:
        value = self._get(name, default)
        # A config written by numpy or JavaScript tools may say 4096.0.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.error(name, f"must be an integer >= {minimum}, not {value!r}")
        return value

    def number(self, name: str, default: Any = _REQUIRED, above: float | None = 0.0) -> float:
        """A finite float; greater than `above` unless that is None."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise self.error(name, f"must be a finite number, not {value!r}")
        if above is not None and value <= above:
            raise self.error(name, f"must be greater than {above:g}, not {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def sub(self, name: str) -> "Fields":
        """The nested object `name`; empty when absent."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"must be an object, not {value!r}")
        return Fields(value, self.file, f"{self.prefix}{name}.")

    def ids(self, name: str) -> tuple[int, ...]:
        """Token ids written as one integer or a list of them; () when absent."""
        value = self._get(name, [])
        values = value if isinstance(value, list) else [value]
        for item in values:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                raise self.error(name, f"must be a token id or a list of them, not {value!r}")
        return tuple(values)

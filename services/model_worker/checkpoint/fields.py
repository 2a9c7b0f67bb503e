"""Checked look-ups in JSON: a wrong or missing value becomes a `ModelLoadError` naming file and field."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radixmesh.services.model_worker.checkpoint.errors import ModelLoadError
from radixmesh.shared.model_files.json_file import whole

LARGEST = 2**31 - 1
"""Sizes are counted in 32 bits by the kernels and on the bus."""
_REQUIRED: Any = object()


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

    def integer(self, name: str, default: Any = _REQUIRED, minimum: int = 1, maximum: float = LARGEST) -> int:
        value = self._get(name, default)
        number = whole(value)
        if number is None or not minimum <= number <= maximum:
            raise self.error(name, f"must be an integer from {minimum} to {maximum}, not {_shown(value)}")
        return number

    def number(self, name: str, default: Any = _REQUIRED, above: float | None = 0.0) -> float:
        """A finite float; greater than `above` unless that is None."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise self.error(name, f"must be a finite number, not {_shown(value)}")
        if above is not None and value <= above:
            raise self.error(name, f"must be greater than {above:g}, not {_shown(value)}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {_shown(value)}")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {_shown(value)}")
        return value

    def sub(self, name: str) -> "Fields":
        """The nested object `name`; empty when absent."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, f"must be an object, not {_shown(value)}")
        return Fields(value, self.file, f"{self.prefix}{name}.")


def _shown(value: object) -> str:
    """`value` in a message."""
    return f"{value!r:.100}"

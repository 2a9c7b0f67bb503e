"""Reads compose.yaml the way `docker compose` does, as far as our files go."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]

_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}")


def read_env() -> dict[str, str]:
    """The variables of ``.env``."""
    lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolate(value: Any, variables: dict[str, str]) -> Any:
    """Fills ``${NAME}`` and ``${NAME:-default}`` in, all the way down.

    Raises:
        KeyError: a variable without a default is not set.
    """
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        if match["default"] is None:
            return variables[match["name"]]
        return variables.get(match["name"]) or match["default"]

    return _VARIABLE.sub(fill, value)


def load(name: str, variables: dict[str, str] | None = None) -> dict[str, Any]:
    """A compose file with ``.env`` filled in; `variables` go before those of the file."""
    raw = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    found: dict[str, Any] = interpolate(raw, {**read_env(), **(variables or {})})
    return found

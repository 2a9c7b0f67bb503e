"""The state file of a running `radixmesh serve`: who runs where, and the way to its bus.

It holds the token of the private nats-server, so only its owner may read it.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radixmesh.shared.host.homes import is_trusted, state_home, temporary_name

FILE = "state.json"


def home() -> Path | None:
    """Where each `radixmesh serve` has its directory with logs and the state file; None for a user without a home."""
    directory = state_home()
    return None if directory is None else directory / "radixmesh"


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Puts `values` in place at once, so that a reader never sees half of them. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read(path: str | Path) -> dict[str, Any]:
    """Raises OSError, or ValueError for what is no JSON object."""
    found = json.loads(Path(path).read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"holds no JSON object, but a {type(found).__name__}")
    return found


def running() -> list[Path]:
    """State files of the supervisors that live on this machine, by name."""
    alive: list[Path] = []
    for path in (path for directory in _directories() for path in directory.glob(f"*/{FILE}")):
        try:
            os.kill(read(path)["pid"], 0)
            alive.append(path)
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            continue  # its supervisor is gone, perhaps with the machine, or is putting the file away at this moment
    return sorted(alive)


def _directories() -> Iterator[Path]:
    if (directory := home()) is not None:
        yield directory
    with contextlib.suppress(OSError):
        if is_trusted(temporary_name()):  # what somebody else has put there would lead us to their bus
            yield temporary_name()

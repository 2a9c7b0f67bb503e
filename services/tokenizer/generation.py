"""What a model's ``generation_config.json`` recommends for requests that say nothing else."""

import logging
import math
from pathlib import Path

from radixmesh.shared.messages import MIN_REPETITION_PENALTY
from radixmesh.shared.model_files.json_file import optional_object

log = logging.getLogger(__name__)

BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (1e-6, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (MIN_REPETITION_PENALTY, 2.0),
}
"""The fields that are honoured, and what a gateway accepts for them."""


def sampling_defaults(directory: Path) -> dict[str, float | int]:
    """The recommended sampling parameters; empty if the model comes without.

    They are recommendations: one that is out of bounds is taken as far as the bounds go, one that is no number is left
    out, either with a warning.

    ``do_sample: false``, which is also the file's default, is not taken as a wish for greedy decoding: many models
    say so by leaving the field out, and OpenAI's default is to sample.

    Raises:
        ModelLoadError: naming the file, if it is no JSON object.
    """
    path = directory / "generation_config.json"
    config = optional_object(path)
    wishes = {name: config[name] for name in BOUNDS if config.get(name) is not None}
    if wishes.get("top_k") == -1:  # another way to switch it off
        del wishes["top_k"]
    found = {name: _honoured(path, name, wish) for name, wish in wishes.items()}
    return {name: value for name, value in found.items() if value is not None}


def _honoured(path: Path, name: str, wish: object) -> float | int | None:
    """What can be done of a wish; None if it is no number."""
    number = _number(wish)
    if number is None:
        log.warning("%s: %s is left out: %.100r is no finite number", path, name, wish)
        return None
    low, high = BOUNDS[name]
    value = min(max(number, low), high)
    if name == "top_k":
        value = int(value)
    if value != number:
        log.warning("%s: %s is taken as %g, not as %.100r: it goes from %g to %g", path, name, value, wish, low, high)
    return value


def _number(wish: object) -> float | None:
    """A finite number, perhaps written as a string."""
    if isinstance(wish, bool) or not isinstance(wish, int | float | str):
        return None
    try:
        number = float(wish)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

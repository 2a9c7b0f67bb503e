"""What a model's ``generation_config.json`` recommends for requests that say nothing else."""

import json
from pathlib import Path

from radixmesh.shared.errors import ModelLoadError

BOUNDS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (1e-6, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, 2.0),
}
"""The fields that are honoured, and what a gateway accepts for them."""


def sampling_defaults(directory: Path) -> dict[str, float | int]:
    """The recommended sampling parameters; empty if the model comes without.

    ``do_sample: false``, which is also the file's default, is not taken as a wish for greedy decoding: many models
    say so by leaving the field out, and OpenAI's default is to sample.

    Raises:
        ModelLoadError: naming the file and the field.
    """
    path = directory / "generation_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path} is no JSON object")
    found = {name: config[name] for name in BOUNDS if config.get(name) is not None}
    for name, value in found.items():
        low, high = BOUNDS[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise ModelLoadError(f"{path}: {name} must be a number from {low:g} to {high:g}, not {value!r}")
    return found

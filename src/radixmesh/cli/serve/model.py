"""Which model is served."""

from importlib.resources import files
from pathlib import Path

from radixmesh.cli.serve.plan import Model
from radixmesh.shared.model_source import default_name, resolve

BUNDLED = "radixmesh-tiny"
"""The model that comes with the package, and the name it is served under."""


def choose(model: str | None, served_name: str | None) -> Model:
    """The model named, else the bundled one.

    A hub model is fetched here, once, before the processes that read it start.

    Raises:
        ModelLoadError: there is no such model.
    """
    if model is None:
        return Model(str(resolve(str(bundled_model()))), served_name or BUNDLED)
    return Model(str(resolve(model)), served_name or default_name(model))


def bundled_model() -> Path:
    """The directory of the model inside the package."""
    return Path(str(files("radixmesh"))) / "models" / BUNDLED

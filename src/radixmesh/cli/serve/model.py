"""Which model is served."""

from importlib.resources import files
from pathlib import Path

from radixmesh.cli.serve import tiny_model
from radixmesh.cli.serve.plan import Model
from radixmesh.shared.model_source import default_name, resolve


def choose(model: str | None, served_name: str | None) -> Model:
    """The model named, else the one that comes with the package, else a tiny random one made on the spot.

    A hub model is fetched here, once, before the processes that read it start.

    Raises:
        ModelLoadError: there is no such model.
        OSError: the tiny model cannot be written.
    """
    if model is not None:
        return Model(str(resolve(model)), served_name or default_name(model))
    bundled = bundled_model()
    if bundled is not None:
        return Model(str(bundled), served_name or bundled.name)
    return Model(str(tiny_model.ensure()), served_name or tiny_model.NAME, random=True)


def bundled_model() -> Path | None:
    """The directory of the model inside the package, if there is one."""
    models = Path(str(files("radixmesh") / "models"))
    found = sorted(path.parent for path in models.glob("*/config.json"))
    return found[0] if found else None

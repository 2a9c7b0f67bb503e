"""Which model is served."""

from radixmesh.cli.serve.planning.plan import ServedModel
from radixmesh.shared.errors import ConfigError
from radixmesh.shared.model_files.model_source import BUNDLED, bundled_model, default_name, resolve
from radixmesh.shared.names import model_name


def choose(model: str | None, served_name: str | None) -> ServedModel:
    """The model named, else the bundled one.

    A hub model is fetched here, once, before the processes that read it start.

    Raises:
        ModelLoadError: there is no such model.
        ConfigError: a model cannot be served under the name of its directory.
    """
    if model is None:
        return ServedModel(str(resolve(str(bundled_model()))), served_name or BUNDLED)
    path = resolve(model)
    return ServedModel(str(path), served_name or _own_name(model))


def _own_name(model: str) -> str:
    name = default_name(model)
    try:
        return model_name(name)
    except ValueError as error:
        raise ConfigError(f"--model: its name {name!r} {error}; give it one by --served-model-name") from None

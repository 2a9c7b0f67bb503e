"""Settings: one flat, frozen class per service, read from flags and ``RADIXMESH_*`` environment variables.

A service's settings derive from `ServiceSettings` directly and from nothing else. Flags win over the environment; a
variable that is empty, as compose files write those that nobody has set, counts as not there. A value is taken as it
stands: none of them is a word for "nothing".
"""

import argparse
import inspect
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from radixmesh.shared import names
from radixmesh.shared.errors import ConfigError

ENV_PREFIX = "RADIXMESH_"

_SCHEMES = ("nats", "tls", "ws", "wss")


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _key(value: SecretStr) -> SecretStr:
    return SecretStr(names.api_key(value.get_secret_value()))


def _servers(value: str) -> str:
    servers = [server.strip() for server in value.split(",")]
    for i, server in enumerate(servers, 1):
        try:
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            right = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not match, a port that is no number or too large
            right = False
        if not right or any(char.isspace() for char in server):  # it may hold a password: the text has none of it
            raise ValueError(f"server {i} does not read like nats://HOST:PORT")
    return ",".join(servers)


Secret = Annotated[SecretStr, BeforeValidator(_stripped)]
"""Taken without the white space around it: secrets are read from files, which end with a newline."""

ApiKey = Annotated[SecretStr, AfterValidator(_key)]

ModelName = Annotated[str, AfterValidator(lambda name: names.model_name(name) if name else name)]
"""Empty: none is given."""


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    nats_url: Annotated[str, AfterValidator(_servers)] = Field(
        "nats://127.0.0.1:4222", description="NATS servers, separated by commas."
    )
    nats_user: str | None = Field(None, description="User name on the NATS server.")
    nats_password: Secret | None = Field(None, description="Password on the NATS server.")
    nats_token: Secret | None = Field(None, description="Token for the NATS server.")
    nats_nkey_seed_file: str | None = Field(None, description="File with the nkey seed for the NATS server.")
    nats_tls_ca: str | None = Field(None, description="CA certificate file; turns TLS on.")
    nats_tls_cert: str | None = Field(None, description="Client certificate file for TLS.")
    nats_tls_key: str | None = Field(None, description="Client key file for TLS.")
    namespace: str = Field("radixmesh", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="First token of every subject.")
    instance: str = Field("", max_length=128, description="Unique name of this process; made up if empty.")
    heartbeat_interval: float = Field(2.0, gt=0, le=60, description="Seconds between presence heartbeats.")
    mailbox_size: int = Field(8192, ge=1, description="New requests that may wait for this process.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")
    log_format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text.")

    def instance_name(self, service: str) -> str:
        """The configured instance name, or one that is unique in the mesh."""
        return self.instance or f"{service}-{socket.gethostname()}-{os.getpid()}"

    @classmethod
    def load(cls, argv: Sequence[str] | None = None, prog: str | None = None) -> Self:
        """Reads flags and environment.

        Args:
            argv: flags without the program's name; None reads no flags.
            prog: the program's name in ``--help``.

        Raises:
            ConfigError: naming each wrong setting by its flag and variable.
        """
        return cls.checked({} if argv is None else vars(_parser(cls, prog).parse_args(argv)))

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> Self:
        """The settings in `given`, by field, and for the others the environment's. Raises ConfigError."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise ConfigError("; ".join(_describe(item) for item in error.errors())) from None


def _parser(settings: type[ServiceSettings], prog: str | None) -> argparse.ArgumentParser:
    """Takes ``--max-slots 8`` for `max_slots`, and for a truth value ``--flag``, ``--no-flag`` and ``--flag=true``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=inspect.cleandoc(settings.__doc__ or ""),
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for name, field in settings.model_fields.items():
        flag, text = name.replace("_", "-"), _help(field)
        if field.annotation is bool:
            parser.add_argument(f"--{flag}", nargs="?", const="true", metavar="BOOL", help=text)
            parser.add_argument(f"--no-{flag}", dest=name, action="store_const", const="false")
        else:
            parser.add_argument(f"--{flag}", metavar=_metavar(field), help=text)
    return parser


def _metavar(field: FieldInfo) -> str:
    if isinstance(field.annotation, type) and issubclass(field.annotation, int | float):
        return "N"
    choices = [choice for choice in get_args(field.annotation) if choice and isinstance(choice, str)]
    return f"{{{','.join(choices)}}}" if choices else "TEXT"


def _help(field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"default: {field.default}"
    told = field.is_required() or field.default not in ("", None)
    return f"{field.description} ({default})".replace("%", "%%") if told else f"{field.description}".replace("%", "%%")


def _describe(item: object) -> str:
    """One line for a pydantic error: the flag, the variable and what is wrong, without the (secret) value."""
    location = item["loc"]  # type: ignore[index]
    name = str(location[0]) if location else "settings"
    what = item["msg"].removeprefix("Value error, ")  # type: ignore[index]
    return f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()}): {what}"

"""Settings: one flat, frozen class per service, read from flags and ``RADIXMESH_*`` environment variables.

A service's settings derive from `ServiceSettings` directly and from nothing else. Flags win over the environment.
"""

import os
import socket
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from radixmesh.shared.errors import ConfigError

ENV_PREFIX = "RADIXMESH_"


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        protected_namespaces=(),
    )

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS servers, separated by commas.")
    nats_user: str | None = Field(None, description="User name on the NATS server.")
    nats_password: SecretStr | None = Field(None, description="Password on the NATS server.")
    nats_token: SecretStr | None = Field(None, description="Token for the NATS server.")
    nats_nkey_seed_file: str | None = Field(None, description="File with the nkey seed for the NATS server.")
    nats_tls_ca: str | None = Field(None, description="CA certificate file; turns TLS on.")
    nats_tls_cert: str | None = Field(None, description="Client certificate file for TLS.")
    nats_tls_key: str | None = Field(None, description="Client key file for TLS.")
    namespace: str = Field(
        "radixmesh", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="First token of every subject."
    )
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
        cls.model_config["cli_prog_name"] = prog
        try:
            return cls(_cli_parse_args=list(argv) if argv is not None else None)
        except ValidationError as error:
            raise ConfigError("; ".join(_describe(item) for item in error.errors())) from None
        except SettingsError as error:
            raise ConfigError(str(error)) from None


def _describe(item: object) -> str:
    """One line for a pydantic error: the flag, the variable and what is wrong, without the (secret) value."""
    location = item["loc"]  # type: ignore[index]
    name = str(location[0]) if location else "settings"
    return f"--{name.replace('_', '-')} ({ENV_PREFIX}{name.upper()}): {item['msg']}"  # type: ignore[index]

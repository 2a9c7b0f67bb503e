"""What a client shows a NATS server, from the settings: read once, so that no file is needed for a reconnect."""

import ssl
from pathlib import Path
from typing import Any

from radixmesh.shared.config import ENV_PREFIX, ServiceSettings
from radixmesh.shared.errors import ConfigError


def credentials(settings: ServiceSettings) -> dict[str, Any]:
    """Arguments of nats-py's `Client.connect`. Raises ConfigError, naming the setting whose file will not do."""
    return {
        "tls": _tls(settings),
        "user": settings.nats_user,
        "password": settings.nats_password.get_secret_value() if settings.nats_password else None,
        "token": settings.nats_token.get_secret_value() if settings.nats_token else None,
        "nkeys_seed_str": _nkey_seed(settings),
    }


def _tls(settings: ServiceSettings) -> ssl.SSLContext | None:
    ca, cert, key = settings.nats_tls_ca, settings.nats_tls_cert, settings.nats_tls_key
    if key is not None and cert is None:
        raise ConfigError(f"{_name('nats_tls_key')}: there is no certificate that the key belongs to")
    if ca is None and cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"{_name('nats_tls_ca')}: {_reason(error)}") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (OSError, ValueError) as error:
            names = " or ".join(_name(field) for field in ("nats_tls_cert", "nats_tls_key") if getattr(settings, field))
            raise ConfigError(f"{names}: {_reason(error)}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")  # OpenSSL would ask for it at the terminal


def _nkey_seed(settings: ServiceSettings) -> str | None:
    if settings.nats_nkey_seed_file is None:
        return None
    import nkeys

    try:
        seed = Path(settings.nats_nkey_seed_file).read_text(encoding="ascii").strip()
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except UnicodeDecodeError:
        raise ConfigError(f"{_name('nats_nkey_seed_file')}: it holds no seed") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_name('nats_nkey_seed_file')}: {_reason(error)}") from None
    except nkeys.NkeysError:
        raise ConfigError(f"{_name('nats_nkey_seed_file')}: it holds no seed") from None
    return seed


def _name(field: str) -> str:
    return f"--{field.replace('_', '-')} ({ENV_PREFIX}{field.upper()})"


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)

"""What a client shows the server: read once, and refused by name if it will not do."""

import asyncio
from pathlib import Path

import nkeys
import pytest

from radixmesh.shared.bus.connection import Bus
from radixmesh.shared.bus.credentials import credentials
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ConfigError
from tests.support import NatsServer, until

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBfTCCASOgAwIBAgIUH+Liw+h8PFvPidDrriV8bG9CpOIwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTI2MTEyNjIxNDUzNFoXDTM2MTEyMzIx
NDUzNFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0D
AQcDQgAEbthOftbeyY6rJTgzBuD06bdLmmaNEa2ZFX9FpffI7jJygHSsDQLbFCFx
jKL9L9Zl+x1Ao+3RB51fqbqttcrsPqNTMFEwHQYDVR0OBBYEFHj5voQ6v2uiM5gd
fWSOq2dhS80HMB8GA1UdIwQYMBaAFHj5voQ6v2uiM5gdfWSOq2dhS80HMA8GA1Ud
EwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgMP1ut+w3fu+N5aNfcqE2C91s
yhPkjyu/vmSve5V+EQwCIQDkMjKvBqnXpoOjqkKfIzcgq715xfETX7LKzcYGObEX
yA==
-----END CERTIFICATE-----
"""
"""Of localhost, signed with `KEY`; it is never shown to anybody."""

KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtuUtxSlhiXFMz3G0
oWAZz+g0zomVN+O7LZ5Q8LljlQ2hRANCAARu2E5+1t7JjqslODMG4PTpt0uaZo0R
rZkVf0Wl98juMnKAdKwNAtsUIXGMov0v1mX7HUCj7dEHnV+puq21yuw+
-----END PRIVATE KEY-----
"""

ENCRYPTED_KEY = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgzKtP7j8ARhgICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEOZRC8jMJZwot6Zn6Xr+TfcEgZB8
cpkHNDVYESo7Zjqjq8ifKrPieIBqzH0ot5KXl+7YygiPxrpxyBIKz4eR9LQOI0Lm
Un/GE7LJlZ6VyMfm8D0urYHKijgLjaX/p0aAKluL3dN6MS5J+wWSS7qmNg1YDAca
rE3RXBS/kID2zxr6xQVoKB5osu9pDMw8UWWrNEN8eaRt4yPbkob1+j/lSh9GioU=
-----END ENCRYPTED PRIVATE KEY-----
"""


def certificate(folder: Path, key: str) -> tuple[str, str]:
    """The names of two files: the certificate, and what is taken for its key."""
    files = folder / "cert.pem", folder / "key.pem"
    for file, content in zip(files, (CERTIFICATE, key), strict=True):
        file.write_text(content)
    return str(files[0]), str(files[1])


@pytest.mark.parametrize("setting", ["nats_tls_ca", "nats_tls_cert", "nats_nkey_seed_file"])
@pytest.mark.parametrize("content", [None, "", "not what it should be", "\xff\xfe", "a folder"])
async def test_a_file_that_will_not_do_is_named(tmp_path: Path, setting: str, content: str | None) -> None:
    file = tmp_path / "file"
    if content == "a folder":
        file.mkdir()
    elif content is not None:
        file.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=f"--{setting.replace('_', '-')} .*: [^:]+"):
        async with asyncio.timeout(5):  # no reason to wait for a server
            await Bus.connect(ServiceSettings.checked({setting: str(file)}), "client")


def test_a_key_without_its_certificate_and_an_encrypted_one(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, ENCRYPTED_KEY)
    with pytest.raises(ConfigError, match=r"--nats-tls-key .*there is no certificate"):
        credentials(ServiceSettings.checked({"nats_tls_ca": cert, "nats_tls_key": key}))
    with pytest.raises(ConfigError, match=r"--nats-tls-cert .* or --nats-tls-key .*the key is encrypted"):
        credentials(ServiceSettings.checked({"nats_tls_cert": cert, "nats_tls_key": key}))


def test_a_certificate_of_our_own_needs_no_authority_of_its_own(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, KEY)
    assert credentials(ServiceSettings.checked({"nats_tls_cert": cert, "nats_tls_key": key}))["tls"]
    assert credentials(ServiceSettings())["tls"] is None


@pytest.mark.parametrize("left", [None, "", "rotated, and not for us to read"])
async def test_a_reconnect_needs_no_file(tmp_path: Path, left: str | None) -> None:
    seed, config = tmp_path / "seed", tmp_path / "nats.conf"
    seed.write_text(SEED + "\n")
    public = nkeys.from_seed(bytearray(SEED.encode())).public_key.decode()
    config.write_text(f"authorization {{ users = [ {{ nkey: {public} }} ] }}\n")
    server = NatsServer("-c", str(config))
    server.start()
    bus = await Bus.connect(ServiceSettings(nats_url=server.url, nats_nkey_seed_file=str(seed)), "client")
    try:
        again = asyncio.Event()

        async def connected() -> None:
            again.set()

        bus.on_reconnect.append(connected)
        if left is None:
            seed.unlink()
        else:
            seed.write_text(left)
        server.stop()
        await until(lambda: not bus.connected)
        server.start()
        await asyncio.wait_for(again.wait(), 20)
    finally:
        await bus.close()
        server.stop()

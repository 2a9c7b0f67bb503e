"""Settings from flags and variables."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.gateway.config import GatewaySettings
from radixmesh.services.model_worker.config import ModelWorkerSettings
from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ConfigError

SETTINGS = [GatewaySettings, TokenizerSettings, SchedulerSettings, ModelWorkerSettings, DetokenizerSettings]


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIXMESH_NAMESPACE", "from-env")
    monkeypatch.setenv("RADIXMESH_LOG_LEVEL", "debug")
    settings = ServiceSettings.load(["--namespace", "from-flag"])
    assert (settings.namespace, settings.log_level) == ("from-flag", "debug")


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--heartbeat-interval", "soon"], r"--heartbeat-interval \(RADIXMESH_HEARTBEAT_INTERVAL\): .*number"),
        (["--namespace", "a.b"], "--namespace"),
        (["--mailbox-size", "0"], "--mailbox-size.*greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_named(argv: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ServiceSettings.load(argv)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIXMESH_NATS_PASSWORD", "hunter2")
    assert "hunter2" not in repr(ServiceSettings.load([]))


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
@example("None")
@example("null")
@example("true")
@example("-x")
@example("[a,b]")
@example('{"a": 1}')
@example('"a')
def test_a_value_is_taken_as_it_stands(value: str) -> None:
    assert ServiceSettings.load([f"--nats-user={value}"]).nats_user == value


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_empty_variable_is_as_good_as_none(settings: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files write variables so that nobody has set."""
    before = settings.load(["--model=x"] if "model" in settings.model_fields else [])
    for name in settings.model_fields:
        monkeypatch.setenv(f"RADIXMESH_{name.upper()}", "")
    assert settings.load(["--model=x"] if "model" in settings.model_fields else []) == before


@pytest.mark.parametrize(
    ("words", "value"),
    [(["--prefix-cache"], True), (["--no-prefix-cache"], False), (["--prefix-cache=false"], False), ([], True)],
)
def test_truth_values_are_flags_and_words(words: list[str], value: bool) -> None:
    assert SchedulerSettings.load(words).prefix_cache is value


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
def test_numbers_are_finite(settings: type[ServiceSettings], value: str) -> None:
    """Without an upper bound one could ask for an infinite number of bytes."""
    needed = ["--model=x"] if "model" in settings.model_fields else []
    for name in (name for name, field in settings.model_fields.items() if field.annotation is float):
        flag = f"--{name.replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"^{flag} "):
            settings.load([*needed, f"{flag}={value}"])


def test_secrets_count_without_the_white_space_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NATS_TOKEN", "NATS_PASSWORD", "API_KEY"):
        monkeypatch.setenv(f"RADIXMESH_{name}", " hush\n")
    loaded = GatewaySettings.load([])
    for secret in (loaded.nats_token, loaded.nats_password, loaded.api_key):
        assert secret is not None
        assert secret.get_secret_value() == "hush"


@pytest.mark.parametrize("key", ["hu\nsh", "hüsh", "hu\x7fsh", "\n", "h" * 4097])
def test_a_key_that_no_client_could_send_is_refused_without_being_told(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADIXMESH_API_KEY", key)
    with pytest.raises(ConfigError, match=r"--api-key \(RADIXMESH_API_KEY\): ") as refused:
        GatewaySettings.load([])
    assert key.strip() not in str(refused.value) or not key.strip()


@pytest.mark.parametrize("name", ["x" * 257, "a\nb", "..", "a/./b", "a "])
@pytest.mark.parametrize("settings", [TokenizerSettings, DetokenizerSettings, ModelWorkerSettings])
def test_a_name_that_no_request_can_ask_for_is_refused(settings: type[ServiceSettings], name: str) -> None:
    with pytest.raises(ConfigError, match="--served-model-name"):
        settings.load(["--model=x", f"--served-model-name={name}"])


@pytest.mark.parametrize(
    "url",
    ["", " ", "http://x", "nats://", "nats://h:99999", "nats://h:x", "nats://[::1", "a b", "h:4222,,", "nats://h:0"],
)
def test_a_bus_that_is_no_address_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--nats-url \(RADIXMESH_NATS_URL\): server \d does not read") as refused:
        ServiceSettings.load([f"--nats-url=nats://me:hunter2@h:1,{url}"])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["h", "h:4222", "nats://u:p@h:4222, tls://[::1]:4222", "ws://h", "wss://h/path"])
def test_addresses_of_a_bus(url: str) -> None:
    assert ServiceSettings.load([f"--nats-url={url}"]).nats_url == url.replace(" ", "")

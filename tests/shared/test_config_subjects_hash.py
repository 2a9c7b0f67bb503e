"""Settings, subjects and prefix hashes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.config import ServiceSettings
from radixmesh.shared.errors import ConfigError, ModelLoadError
from radixmesh.shared.model_source import resolve
from radixmesh.shared.prefix_hash import block_hashes
from radixmesh.shared.subjects import Subjects, subject_token


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


@given(st.text(min_size=1, max_size=80))
def test_any_name_makes_one_subject_token(name: str) -> None:
    token = subject_token(name)
    assert not set(token) & set(" .*>\t\r\n")
    assert 0 < len(token) <= 64


def test_subjects_of_different_names_differ() -> None:
    subjects = Subjects("ns")
    assert subjects.submit("a/b") != subjects.submit("a.b")
    assert subjects.submit("tiny") == "ns.submit.tiny"


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_hashes_agree_exactly_on_the_common_prefix(left: list[int], right: list[int], block: int) -> None:
    a, b = block_hashes(np.array(left, np.int32), block), block_hashes(np.array(right, np.int32), block)
    for i in range(min(len(a), len(b))):
        same = left[: (i + 1) * block] == right[: (i + 1) * block]
        assert (a[i] == b[i]) == same


def test_namespaces_share_nothing() -> None:
    tokens = np.arange(8, dtype=np.int32)
    assert not set(block_hashes(tokens, 4, "a").tolist()) & set(block_hashes(tokens, 4, "b").tolist())


def test_a_path_that_is_no_model_is_named(tmp_path: object) -> None:
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(ModelLoadError, match="neither a directory nor"):
        resolve("/nowhere/at-all")

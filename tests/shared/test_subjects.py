"""Addresses on the bus."""

from hypothesis import given
from hypothesis import strategies as st

from radixmesh.shared.subjects import Subjects, subject_token


@given(st.text(min_size=1, max_size=80))
def test_any_name_makes_one_subject_token(name: str) -> None:
    token = subject_token(name)
    assert not set(token) & set(" .*>\t\r\n")
    assert 0 < len(token) <= 64


def test_subjects_of_different_names_differ() -> None:
    subjects = Subjects("ns")
    assert subjects.submit("a/b") != subjects.submit("a.b")
    assert subjects.submit("tiny") == "ns.submit.tiny"

"""constraints.txt and pyproject.toml agree, and the lock names no place that its packages came from."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def locked() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {name: Version(version) for name, version in pins.items()}


def required() -> Iterator[Requirement]:
    """Every requirement that pyproject.toml names, but for the package's own extras."""
    file = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [file["project"]["dependencies"], *file["project"]["optional-dependencies"].values()]
    for text in [*file["build-system"]["requires"], *(text for group in groups for text in group)]:
        requirement = Requirement(text)
        if requirement.name != file["project"]["name"]:
            yield requirement


def test_everything_that_is_asked_for_is_locked_within_its_bounds() -> None:
    versions = locked()
    found = {str(wanted): (versions.get(canonicalize_name(wanted.name)), wanted) for wanted in required()}
    assert not [text for text, (version, _) in found.items() if version is None]
    assert not [text for text, (version, wanted) in found.items() if version and version not in wanted.specifier]


def test_a_lock_line_is_a_name_and_a_public_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    odd = [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][0-9a-z.]*", line)]
    assert not odd
    assert not any("://" in line for line in lines)
    assert [canonicalize_name(name) for name in locked()] == sorted(locked())

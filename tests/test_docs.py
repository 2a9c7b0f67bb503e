"""What the documents name is there: files, and what is said to be in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "log.md")]
_NAMED = re.compile(r"`([\w/.-]+\.(?:py|md|proto|json|yaml|toml|cpp|h))(?:: ([\w.]+))?`")
"""A file in backquotes, or ``file: name``."""
_MADE_BY_OTHERS = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "FAMILY.py",
}
"""Of model directories, and those that a reader is to write."""


@pytest.fixture(scope="module", name="files")
def tracked_files() -> list[str]:
    places = (
        ROOT / name for name in ("services", "shared", "src", "tests", "benchmarks", "docs", "training", "deploy")
    )
    paths = [path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in [*paths, *ROOT.glob("*.*")]]


def defines(text: str, name: str) -> bool:
    """Whether a module defines ``name`` or ``Class.name``: all of its parts are bound somewhere in it."""
    return all(
        re.search(rf"^\s*(?:(?:async )?def|class) {part}\b|^\s*(?:self\.)?{part}(?:: [^=\n]+)?(?: =|$)", text, re.M)
        for part in name.split(".")
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_named_is_there(document: Path, files: list[str]) -> None:
    wrong = []
    for path, name in _NAMED.findall(" ".join(document.read_text(encoding="utf-8").split())):
        if path.rsplit("/", 1)[-1] in _MADE_BY_OTHERS and not name:
            continue
        found = [file for file in files if f"/{file}".endswith(f"/{path}")]
        if not any(not name or defines((ROOT / file).read_text(encoding="utf-8"), name) for file in found):
            wrong.append(f"{path}: {name}" if name else path)
    assert not wrong

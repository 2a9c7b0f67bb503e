"""Checkpoints of random weights in the shape of real models: what a server costs does not depend on the values.

    python -m benchmarks.checkpoints qwen3-0.6b     writes it, once, and prints its directory

A checkpoint is a Hugging Face directory with bfloat16 safetensors and a byte-level BPE tokenizer that decodes every
id to printable text, so that no server stumbles over half characters.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.comparison.shapes import EOS, SHAPES, Shape
from radixmesh.shared.host import homes

VERSION = 1
"""Raise it when anything below changes: directories of other versions are left alone."""

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
SPACE = "Ġ"
"""How byte-level BPE writes a space."""


def cache_home() -> Path:
    """Raises OSError for a user without a home on a machine without a directory for temporary files."""
    return (homes.cache_home() or homes.temporary()) / "radixmesh"


def ensure(shape: Shape, home: Path | None = None) -> Path:
    """The checkpoint's directory; written first if it is not there yet. Raises OSError."""
    directory = (home or cache_home() / "benchmarks") / f"{shape.name}-v{VERSION}"
    if (directory / "config.json").is_file():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{shape.name}-", dir=directory.parent))
    try:
        write(shape, draft)
        draft.chmod(0o755)
        draft.replace(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


def write(shape: Shape, directory: Path) -> None:
    """Writes the model's files into the existing `directory`. Raises OSError."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(20240)

    def tensor(size: tuple[int, ...]) -> torch.Tensor:
        if len(size) == 1:
            return torch.ones(size, dtype=torch.bfloat16)
        return (torch.randn(size, generator=generator) * 0.02).to(torch.bfloat16)

    weights = {name: tensor(size) for name, size in shape.tensors()}
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": SPECIALS[EOS],
        "pad_token": SPECIALS[0],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.positions,
    }
    for name, content in (
        ("tokenizer.json", tokenizer_json(shape.vocab)),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", {"eos_token_id": EOS}),
        ("config.json", shape.config()),
    ):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def merges() -> Iterator[tuple[str, str]]:
    """Pairs of symbols that become one, in the order of their rank: all of two letters, a space and a letter, ..."""
    for a, b in product(LETTERS, LETTERS):
        yield a, b
    for a in LETTERS:
        yield SPACE, a
    for a, b in product(LETTERS, LETTERS):
        yield SPACE + a, b
    for a, b, c in product(LETTERS, LETTERS, LETTERS):
        yield a + b, c
    for a, b, c in product(LETTERS, LETTERS, LETTERS):
        yield SPACE + a + b, c


def tokenizer_json(vocab: int) -> dict[str, Any]:
    """The content of tokenizer.json: `vocab` ids, the special ones first, then bytes, then groups of letters.

    Raises:
        ValueError: so many ids cannot be made, or so few would leave a byte out.
    """
    from tokenizers import pre_tokenizers

    symbols = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    chosen = [pair for pair, _ in zip(merges(), range(vocab - len(symbols)), strict=False)]
    symbols += [a + b for a, b in chosen]
    if len(symbols) != vocab:
        raise ValueError(f"a tokenizer of {vocab} ids cannot be made; {len(symbols)} would be right")
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **special} for i, text in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(symbols)},
            "merges": [list(pair) for pair in chosen],
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shapes", nargs="+", choices=SHAPES, metavar="NAME", help=", ".join(SHAPES))
    parser.add_argument("--home", type=Path, help="where to put them (default: below ~/.cache/radixmesh)")
    args = parser.parse_args()
    for name in args.shapes:
        shape = SHAPES[name]
        directory = ensure(shape, args.home)
        print(f"{directory}  {shape.parameters / 1e6:.0f}M parameters, {shape.weight_bytes / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

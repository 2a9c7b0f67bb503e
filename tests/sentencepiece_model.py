"""Small sentencepiece models, trained on the spot."""

import io
from pathlib import Path
from typing import Any

import sentencepiece

_TEXT = """
The quick brown fox jumps over the lazy dog while the small model counts its tokens, one after another.
A server answers many requests at once: some are long, some are short, and all of them want their words soon.
Il était une fois une forêt où les élèves répétaient: naïve, café, garçon. Ünïcödé ist schön, sagt der Bär.
Once upon a time there was a little girl who wanted to read everything there is to read about trees.
"""


def train(directory: Path, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Writes a ``tokenizer.model`` of 340 pieces; 0 is <unk>, 1 <s>, 2 </s>, and 3 to 258 are bytes.

    Returns what sentencepiece itself makes of it.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.splitlines() * 3),
        model_writer=model,
        minloglevel=2,
        **{"vocab_size": 340, "model_type": "bpe", "byte_fallback": True, **options},
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.model").write_bytes(model.getvalue())
    return load(directory)


def load(directory: Path) -> sentencepiece.SentencePieceProcessor:
    """What sentencepiece makes of the ``tokenizer.model`` in `directory`."""
    return sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))

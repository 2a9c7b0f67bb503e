"""The tokenizer of a model directory: the same for who encodes and who decodes.

``tokenizer.json`` is taken as it stands, by the `tokenizers` library alone: `transformers` takes two seconds to import,
and for some classes puts its own way of splitting text in place of the file's.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer import added, conversion, fields
from radixmesh.shared.model_files.tokenizer.conversion import PythonTokenizer
from radixmesh.shared.model_files.tokenizer.folder import Folder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a model directory says about text and tokens."""

    tokenizer: Tokenizer | PythonTokenizer
    """The latter only where there is nothing but a tokenizer in Python."""
    chat_template: str | dict[str, str] | None
    """Several by name, of which ``tool_use`` is for requests with tools and ``default`` for all others."""
    special_tokens: Mapping[str, str]
    """By name, such as ``bos_token``; chat templates know them by these."""
    special_ids: frozenset[int]
    """Control tokens, which are not shown."""
    vocab_size: int
    """One more than the highest id."""
    longest: int
    """Characters of the longest spelling."""
    fingerprint: str
    """Equal where every id is spelled alike and hidden alike, and spellings become text alike."""


def read(directory: Path) -> TokenizerFiles:
    """Reads the files in `directory`; never runs code that comes with them. Raises ModelLoadError."""
    folder = Folder(directory)
    tokenizer = _tokenizer(folder)
    if isinstance(tokenizer, Tokenizer):
        tokenizer.no_truncation()
        tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab()
    special = {number for number, entry in tokenizer.get_added_tokens_decoder().items() if entry.special}
    special |= {vocabulary[token.content] for token in folder.special if token.content in vocabulary}
    return TokenizerFiles(
        tokenizer,
        folder.chat_template,
        {name: token.content for name, token in folder.named.items() if token.content in vocabulary},
        frozenset(special),
        vocab_size=max(vocabulary.values(), default=-1) + 1,
        longest=max(map(len, vocabulary), default=1),
        fingerprint=_fingerprint(vocabulary, special, tokenizer.decoder.__getstate__() if tokenizer.decoder else b""),
    )


def _tokenizer(folder: Folder) -> Tokenizer | PythonTokenizer:
    if not (folder.directory / "tokenizer.json").is_file():
        converted = conversion.convert(folder)
        return _declared(converted, folder) if isinstance(converted, Tokenizer) else converted
    try:
        tokenizer = Tokenizer.from_str(folder.tokenizer_text)
    except Exception as error:  # tokenizers raises bare Exceptions for malformed files
        raise ModelLoadError(f"{folder.directory / 'tokenizer.json'}: {error}") from error
    tokenizer = added.declare(fields.apply(tokenizer, folder), folder)
    unknown = fields.unknown(folder)
    if unknown and (other := conversion.heeded(folder, unknown, tokenizer)) is not None:
        tokenizer = _declared(other, folder)
    fields.add_ends(tokenizer, folder)
    return tokenizer


def _declared(converted: Tokenizer, folder: Folder) -> Tokenizer:
    return added.declare(added.without_astray(converted, folder), folder)


def _fingerprint(vocabulary: Mapping[str, int], special: set[int], decoder: bytes) -> str:
    ids = np.fromiter(vocabulary.values(), np.int64, len(vocabulary))
    order = np.argsort(ids)
    spellings = list(vocabulary)
    digest = hashlib.blake2b(ids[order].tobytes(), digest_size=16)
    digest.update(np.array(sorted(special), np.int64).tobytes())
    digest.update(decoder)
    digest.update("\0".join([spellings[place] for place in order]).encode(errors="surrogatepass"))
    return digest.hexdigest()

"""Tokens that another file than ``tokenizer.json`` declares, put into the tokenizer.

A token keeps the id that it was declared with. Where the files disagree ``tokenizer.json`` is believed, and the
disagreement is said: the model was trained with ids of one of them, and that file is the one that everybody reads.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.tokenizer.folder import Folder, Token

log = logging.getLogger(__name__)


def declare(tokenizer: Tokenizer, folder: Folder) -> Tokenizer:
    """`tokenizer` with all that `folder` declares; it may be changed or replaced.

    Tokens without an id are those that only a name such as ``eos_token`` gives: unless the vocabulary has them, they
    get the next free ids.
    """
    known = tokenizer.get_added_tokens_decoder()
    changed = []
    missing = []
    for token in folder.declared:
        number, spelling = tokenizer.token_to_id(token.content), tokenizer.id_to_token(token.id or 0)
        if number is None and spelling is not None:
            text = "%s: id %s is declared as %.80r, but is %.80r"
            log.warning(text, folder.directory, token.id, token.content, spelling)
        elif number is None:
            missing.append(token)
        else:
            if number != token.id:
                text = "%s: %.80r is declared with id %s, but has id %d"
                log.warning(text, folder.directory, token.content, token.id, number)
            if number not in known or _flags(known[number]) != _flags(_added(token)):
                changed.append(token)
    if missing:
        tokenizer = _with_ids(tokenizer, missing, folder)
    tokenizer.add_tokens([_added(token) for token in (*changed, *missing)])
    _name(tokenizer, folder)
    return tokenizer


def without_astray(tokenizer: Tokenizer, folder: Folder) -> Tokenizer:
    """`tokenizer`, which `transformers` has made, without its added tokens if one of them has another id than declared.

    It gives the next free ids, whatever the files say.
    """
    if all(tokenizer.token_to_id(token.content) in (None, token.id) for token in folder.declared):
        return tokenizer
    file = json.loads(tokenizer.to_str())
    model = tokenizer.get_vocab(with_added_tokens=False)
    file["added_tokens"] = [token for token in file["added_tokens"] if token["content"] in model]
    return edited(tokenizer, file)


def _name(tokenizer: Tokenizer, folder: Folder) -> None:
    """Makes sure of the tokens that have a name, or are called special without an id."""
    added = {entry.content for entry in tokenizer.get_added_tokens_decoder().values()}
    defaults = set(folder.class_names.values())
    new = []
    for token in (*folder.named.values(), *folder.extra):
        known = tokenizer.token_to_id(token.content) is not None
        if token.content not in added and (known or token.content not in defaults):
            new.append(_added(token))
    if new:
        tokenizer.add_tokens(new)


def _with_ids(tokenizer: Tokenizer, missing: Sequence[Token], folder: Folder) -> Tokenizer:
    """`tokenizer` with room for new tokens under their own ids. `add_tokens` gives none but the next free ones."""
    size = tokenizer.get_vocab_size()
    if [token.id for token in missing] == list(range(size, size + len(missing))):
        return tokenizer  # `add_tokens` gives them these ids
    file: dict[str, Any] = json.loads(tokenizer.to_str())
    vocab = file["model"].get("vocab")
    if not isinstance(vocab, dict):
        names = ", ".join(token.content for token in missing)
        raise ModelLoadError(f"{folder.directory}: declared ids leave a gap behind the vocabulary: {names:.200}")
    vocab |= {token.content: token.id for token in missing}
    return edited(tokenizer, file)


def edited(tokenizer: Tokenizer, file: dict[str, Any]) -> Tokenizer:
    """`tokenizer` as the changed `file` describes it."""
    again = Tokenizer.from_str(json.dumps(file))
    again.encode_special_tokens = tokenizer.encode_special_tokens  # which no file holds
    return again


def _added(token: Token) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )


def _flags(token: AddedToken) -> tuple[bool, ...]:
    return token.single_word, token.lstrip, token.rstrip, token.normalized, token.special

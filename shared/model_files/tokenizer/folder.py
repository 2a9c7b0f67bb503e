"""What the JSON files of a model directory say about its tokens, as they say it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.model_files.json_file import optional_object
from radixmesh.shared.model_files.tokenizer import sentencepiece_file

TEMPLATE_FILE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"

_EARLY = 2 << 20
"""Characters at the beginning of a ``tokenizer.json`` that hold its added tokens. Some models have thousands."""

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Names of special tokens, in the order in which those that the vocabulary lacks get ids."""

_CLASS_NAMES: dict[str, dict[str, str]] = {
    "Qwen2Tokenizer": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
    "GPT2Tokenizer": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
}
"""Special tokens that a class has unless its configuration names others. They count if the vocabulary has them."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as a file declares it. `id` is None where the file gives only its spelling."""

    content: str
    id: int | None = None
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


class Folder:
    """The files of one directory, each read when it is asked for.

    Raises:
        ModelLoadError: from any attribute; the text names the file, and the field.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @cached_property
    def config(self) -> dict[str, Any]:
        """``tokenizer_config.json``."""
        return optional_object(self.directory / "tokenizer_config.json")

    @cached_property
    def model_type(self) -> str:
        """The model's family, by ``config.json``."""
        return str(optional_object(self.directory / "config.json").get("model_type") or "")

    @property
    def tokenizer_class(self) -> str:
        """The class that the configuration names, without the ending of its fast variant; or empty."""
        return str(self.config.get("tokenizer_class") or "").removesuffix("Fast")

    @cached_property
    def _older(self) -> dict[str, Any]:
        return optional_object(self.directory / "special_tokens_map.json")

    @cached_property
    def named(self) -> dict[str, Token]:
        """Special tokens by name, such as ``eos_token``.

        Where the configuration lists its tokens with their ids it outweighs the older ``special_tokens_map.json``,
        else the older file outweighs it. What neither names follows from the class.
        """
        files = (self._older, self.config) if self._lists else (self.config, self._older)
        fields: dict[str, Any] = {**dict.fromkeys(_NAMES), **self.class_names}
        for file in files:
            fields |= {name: value for name, value in file.items() if name.endswith("_token")}
            for extra in _extra_fields(file):
                fields |= extra if isinstance(extra, dict) else {}
        return {name: token for name, value in fields.items() if (token := _token(value)) is not None}

    @property
    def _lists(self) -> bool:
        return "added_tokens_decoder" in self.config

    @property
    def ends(self) -> set[str]:
        """Spellings of ``eos_token`` in any of the files."""
        values = (self.config.get("eos_token"), self._older.get("eos_token"))
        tokens = [self.named.get("eos_token"), *map(_token, values)]
        return {token.content for token in tokens if token is not None}

    @property
    def class_names(self) -> dict[str, str]:
        """Names that the class gives to tokens which the vocabulary need not have."""
        return _CLASS_NAMES.get("Qwen2Tokenizer" if self.model_type == "qwen2" else self.tokenizer_class, {})

    @cached_property
    def extra(self) -> list[Token]:
        """Special tokens without a name, where the vocabulary may lack them."""
        return _extra(self.config) or ([] if self._lists else _extra(self._older))

    @property
    def special(self) -> list[Token]:
        """Every token that another file than ``tokenizer.json`` calls special."""
        return [*self._called_special, *(token for token in self.declared if token.special)]

    @property
    def _called_special(self) -> list[Token]:
        """By a name or in a list, without an id."""
        return [*self.named.values(), *_extra(self.config), *_extra(self._older)]

    @cached_property
    def declared(self) -> list[Token]:
        """Tokens that are declared with their ids beside ``tokenizer.json``, by id; each spelling once."""
        special = {token.content for token in self._called_special}
        found: dict[str, Token] = {}
        path = self.directory / "added_tokens.json"
        for content, number in optional_object(path).items():
            # Found in the text as it is: a normalizer that marks words would hide it inside of one.
            found[content] = Token(content, _id(number, path, content), content in special)
        path = self.directory / "tokenizer_config.json"
        listed = self.config.get("added_tokens_decoder") or {}
        if not isinstance(listed, dict):
            raise ModelLoadError(f"{path}: added_tokens_decoder must be an object")
        for number, value in listed.items():
            token = _described(value, _id(number, path, f"added_tokens_decoder.{number}"), path)
            found[token.content] = token
        return sorted(found.values(), key=lambda token: token.id or 0)

    @cached_property
    def chat_template(self) -> str | dict[str, str] | None:
        """Several by name, of which ``tool_use`` is for requests with tools and ``default`` for all others.

        Files of templates stand in place of what the configuration holds.
        """
        files = {path.stem: path for path in sorted((self.directory / MORE_TEMPLATES).glob("*.jinja"))}
        if (path := self.directory / TEMPLATE_FILE).is_file():
            files["default"] = path
        try:
            texts = {name: path.read_text(encoding="utf-8-sig") for name, path in files.items()}
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{self.directory}: a chat template cannot be read: {error}") from error
        if texts:
            return texts["default"] if list(texts) == ["default"] else texts
        return self._configured_template()

    def _configured_template(self) -> str | dict[str, str] | None:
        value = self.config.get("chat_template")
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            value = {item.get("name"): item.get("template") for item in value}
        if isinstance(value, dict):
            plain = all(isinstance(name, str) and isinstance(text, str) for name, text in value.items())
            if plain:
                return value
        elif isinstance(value, str | None):
            return value
        raise ModelLoadError(f"{self.directory / 'tokenizer_config.json'}: chat_template is no template")

    # -- ids by spelling, without a tokenizer --

    def id_of(self, content: str) -> int | None:
        """The id that the tokenizer has for a spelling; where the files disagree, ``tokenizer.json`` is believed."""
        if content in self._listed_ids:
            return self._listed_ids[content]
        if content in self._vocabulary:
            return self._vocabulary[content]
        number = self._declared_ids.get(content)
        return None if number in self._taken else number

    @cached_property
    def listed(self) -> list[Token]:
        """The added tokens of ``tokenizer.json``, found without reading the many megabytes behind them."""
        path = self.directory / "tokenizer.json"
        tokens = _early_list(self._text(_EARLY), "added_tokens")
        if tokens is None:
            tokens = self._tokenizer_json.get("added_tokens") or []
        if not isinstance(tokens, list):
            raise ModelLoadError(f"{path}: added_tokens must be a list")
        return [_described(token, None, path) for token in tokens]

    @cached_property
    def _listed_ids(self) -> dict[str, int | None]:
        return {token.content: token.id for token in self.listed}

    @cached_property
    def _declared_ids(self) -> dict[str, int | None]:
        return {token.content: token.id for token in self.declared}

    @cached_property
    def _taken(self) -> set[int | None]:
        """Ids that ``tokenizer.json`` spells."""
        return {*self._listed_ids.values(), *self._vocabulary.values()}

    @cached_property
    def tokenizer_text(self) -> str:
        """``tokenizer.json``; empty if there is none."""
        return self._text()

    def _text(self, characters: int = -1) -> str:
        """`tokenizer_text`, or so many `characters` of its beginning."""
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            return ""
        try:
            with path.open(encoding="utf-8-sig") as file:
                return file.read(characters)
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"{path}: {error}") from error

    @cached_property
    def _tokenizer_json(self) -> dict[str, Any]:
        return optional_object(self.directory / "tokenizer.json")

    @cached_property
    def _vocabulary(self) -> Mapping[str, int]:
        model = self._tokenizer_json.get("model")
        vocab = model.get("vocab") if isinstance(model, dict) else optional_object(self.directory / "vocab.json")
        if isinstance(vocab, list):  # Unigram's: pairs of spelling and score
            return {item[0]: index for index, item in enumerate(vocab) if isinstance(item, list) and item}
        if vocab:
            return {spelling: number for spelling, number in vocab.items() if isinstance(number, int)}
        path = self.directory / "tokenizer.model"
        return {piece: index for index, piece in enumerate(sentencepiece_file.pieces(path))}


def _extra(fields: Mapping[str, Any]) -> list[Token]:
    """Special tokens without a name; those with one of their own are `Folder.named`."""
    lists = (value for value in _extra_fields(fields) if isinstance(value, list))
    return [token for value in lists for item in value if (token := _token(item)) is not None]


def _extra_fields(fields: Mapping[str, Any]) -> list[Any]:
    names = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
    return [fields.get(name) for name in names]


def _token(value: object) -> Token | None:
    """A token that is named by its spelling, or described; None for anything else."""
    if isinstance(value, str) and value:
        return Token(value)
    if isinstance(value, dict) and isinstance(value.get("content"), str) and value["content"]:
        return _described({**value, "special": True}, None, Path())
    return None


def _described(value: object, number: int | None, path: Path) -> Token:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ModelLoadError(f"{path}: an added token has no content: {str(value)[:80]}")
    special = bool(value.get("special", False))
    if number is None and isinstance(value.get("id"), int):
        number = value["id"]
    return Token(
        value["content"],
        number,
        special,
        lstrip=bool(value.get("lstrip", False)),
        rstrip=bool(value.get("rstrip", False)),
        single_word=bool(value.get("single_word", False)),
        normalized=bool(value.get("normalized", not special)),
    )


def _id(value: object, path: Path, where: str) -> int:
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 31:
        raise ModelLoadError(f"{path}: {where[:80]!r} must have a token id, not {str(value)[:40]!r}")
    return number


def _early_list(text: str, name: str) -> object | None:
    """The list that follows the first ``"name":`` in JSON `text`; None if there is none near the beginning."""
    head = text[:65536]
    at = head.find(f'"{name}"')
    if at < 0 or '"model"' in head[:at]:
        return None
    start = at + len(name) + 2
    while start < len(text) and text[start] in " \t\r\n:":
        start += 1
    try:
        value: object = json.JSONDecoder().raw_decode(text, start)[0]
    except ValueError:
        return None
    return value

"""A tokenizer from its files: by the `tokenizers` library alone where that is certain to be right.

`transformers` takes two seconds to import. What it adds to a ``tokenizer.json`` depends on the class that the
configuration names and on tokens that the configuration declares besides; `_read` takes only those whose outcome is the
file as it stands, and leaves all others to `transformers`.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from radixmesh.shared.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""What chat templates may know special tokens by."""

_FILE_IS_ALL = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take ``tokenizer.json`` as it is."""

_FAMILIES = ("llama", "qwen2", "qwen3")
"""Values of ``model_type`` for which `transformers` goes by the class that the configuration names, or by Qwen2's."""

_TEMPLATE_FILE, _MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a model directory says about text and tokens."""

    tokenizer: "Tokenizer | PreTrainedTokenizerBase"
    """The latter only if it has no `Tokenizer` inside, but runs in Python."""
    chat_template: str | dict[str, str] | None
    """Several by name, of which ``tool_use`` is for requests with tools and ``default`` for all others."""
    special_tokens: Mapping[str, str]
    """By `SPECIAL_NAMES`."""


def read(directory: Path) -> TokenizerFiles:
    """Reads the files in `directory`; never runs code that comes with them. Raises ModelLoadError."""
    return _read_or_none(directory) or _by_transformers(directory)


def _read_or_none(directory: Path) -> TokenizerFiles | None:
    try:
        return _read(directory)
    except Exception as error:  # noqa: BLE001  files of any form: transformers will say what is wrong with them
        log.debug("%s: %r", directory, error)
        return None


def _read(directory: Path) -> TokenizerFiles | None:
    """None if it takes `transformers` to know; raises whatever malformed files make it."""
    config = _json(directory / "tokenizer_config.json")
    family = _json(directory / "config.json").get("model_type")
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    file = json.loads(text)
    kind = config["tokenizer_class"].removesuffix("Fast")
    like_qwen2 = kind == "Qwen2Tokenizer" or family == "qwen2"
    llama3 = kind == "LlamaTokenizer" and family == "llama" and '"ByteLevel"' in text
    as_it_is = _is_qwen2s(file) if like_qwen2 else llama3 or config["tokenizer_class"] in _FILE_IS_ALL
    odd = {"auto_map", "fast_tokenizer_files", "init_inputs", "fix_mistral_regex"} & config.keys()
    if family not in _FAMILIES or not as_it_is or odd or config.get("split_special_tokens"):
        return None
    template = config.get("chat_template")
    if not isinstance(template, str | None) or (directory / _MORE_TEMPLATES).exists():
        return None
    if (alone := directory / _TEMPLATE_FILE).is_file():
        template = alone.read_text(encoding="utf-8")
    named = dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>") if like_qwen2 else {}
    named |= _declared(directory, config)
    added = {token["content"]: token for token in file["added_tokens"]}
    if not all(content in added for content in _contents(named)) or not _same(config, added):
        return None
    special = {name: next(_contents(named[name])) for name in SPECIAL_NAMES if named.get(name) is not None}
    return TokenizerFiles(Tokenizer.from_str(text), template, special)


def _json(path: Path) -> dict[str, Any]:
    fields = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise TypeError(f"{path} is no JSON object")
    return fields


def _is_qwen2s(file: Mapping[str, Any]) -> bool:
    """Whether the file splits and joins text as `transformers`' class for Qwen2 does whatever the file says."""
    model = file["model"]
    steps = file["pre_tokenizer"].get("pretokenizers") or [{}]
    split, byte_level = steps[0], steps[-1]
    return (
        len(steps) == 2
        and file["normalizer"] == {"type": "NFC"}
        and split.get("pattern") == {"Regex": _QWEN2_SPLIT}
        and (split["type"], split["behavior"], split["invert"]) == ("Split", "Isolated", False)
        and (byte_level["type"], byte_level["add_prefix_space"], byte_level["use_regex"]) == ("ByteLevel", False, False)
        and file["decoder"]["type"] == "ByteLevel"
        and model["type"] == "BPE"
        and not any(model.get(name) for name in ("dropout", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges"))
        and not any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    )


def _declared(directory: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """All fields that name special tokens. The older files count only where the configuration lists no tokens."""
    fields = dict(config)
    if "added_tokens_decoder" not in config:
        for name in ("special_tokens_map.json", "added_tokens.json"):
            path = directory / name
            if path.is_file():
                more = _json(path)
                fields |= more if name.startswith("special") else {"extra_tokens": list(more)}
    return {
        name: value
        for name, value in fields.items()
        if name.endswith(("_token", "_special_tokens", "extra_tokens")) and not isinstance(value, bool)
    }


def _contents(declared: object) -> Iterator[str]:
    """The spellings in a field of the configuration: a string, a token's description, or several of them."""
    if isinstance(declared, str):
        yield declared
    elif isinstance(declared, dict) and isinstance(declared.get("content"), str):
        yield declared["content"]
    elif isinstance(declared, dict | list):
        for item in declared.values() if isinstance(declared, dict) else declared:
            yield from _contents(item)


def _same(config: Mapping[str, Any], added: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the tokens that the configuration lists are in the file, in every particular."""
    listed = config.get("added_tokens_decoder") or {}
    return all(
        (there := added.get(token["content"])) is not None
        and there["id"] == int(number)
        and all(token.get(flag, there[flag]) == there[flag] for flag in _FLAGS)
        for number, token in listed.items()
    )


def _by_transformers(directory: Path) -> TokenizerFiles:
    try:
        from transformers import AutoTokenizer  # here, because it takes two seconds in which the service can be seen

        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many unrelated types for tokenizers that it cannot read
        raise ModelLoadError(f"{directory}: cannot load the tokenizer: {error}") from error
    # Without any tokenizer file, transformers gives an empty tokenizer of the model's family.
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ModelLoadError(f"{directory} has no usable tokenizer (tokenizer.json or tokenizer.model)")
    inside = getattr(tokenizer, "backend_tokenizer", None)
    return TokenizerFiles(inside or tokenizer, tokenizer.chat_template, tokenizer.special_tokens_map)

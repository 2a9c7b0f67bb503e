"""What the fields of ``tokenizer_config.json`` change about the ``tokenizer.json`` beside it.

nothing                    the fields in `INERT`, and the class: the file says how text is split. (`transformers`
                           splits by its own class of that name, or by Qwen2's for all of that model_type.)
split_special_tokens       special tokens in a text are ordinary text
add_prefix_space           a space before the text, for classes that heed it
add_bos_token, _eos_token  for classes that heed them; other classes leave it to the file
*_token, extra and added   see `folder` and `added`
anything else              is tried: see `conversion.heeded`
"""

import json
import logging
from typing import Any

from tokenizers import Tokenizer, processors

from radixmesh.shared.model_files.tokenizer import added
from radixmesh.shared.model_files.tokenizer.folder import Folder

log = logging.getLogger(__name__)

HEEDED = frozenset(
    {
        *("add_bos_token", "add_eos_token", "add_prefix_space", "split_special_tokens"),
        *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
        *("model_specific_special_tokens", "chat_template"),
    }
)
INERT = frozenset(
    {
        # which program made the file, and how it is to be loaded there
        *("tokenizer_class", "auto_map", "backend", "processor_class", "name_or_path", "_commit_hash"),
        *("tokenizer_file", "vocab_file", "merges_file", "special_tokens_map_file", "added_tokens_file"),
        *("is_local", "local_files_only", "transformers_version", "use_fast", "from_slow"),
        *("trust_remote_code", "device_map", "revision"),
        # how batches are laid out for training
        *("model_max_length", "max_length", "max_len", "padding", "padding_side", "pad_to_multiple_of", "stride"),
        *("pad_token_type_id", "pad_token_id", "truncation", "truncation_side", "truncation_strategy"),
        *("model_input_names", "return_token_type_ids", "return_tensors"),
        # how whole texts are tidied after decoding, which a text that is streamed cannot be
        *("clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors"),
        # how a tokenizer.json is made from a tokenizer.model
        *("legacy", "sp_model_kwargs"),
        # about chats
        *("use_default_system_prompt", "response_schema", "response_template", "tool_parser_type"),
        # what config.json says better
        *("bos_token_id", "eos_token_id", "unk_token_id", "vocab_size"),
    }
)

_AS_IT_IS = ("", "PreTrainedTokenizer", "TokenizersBackend")
_ADD_ENDS = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")
"""Classes whose ``add_bos_token`` and ``add_eos_token`` have always outweighed the file."""


def unknown(folder: Folder) -> list[str]:
    """Fields of which nobody knows here what they do."""
    others = folder.config.keys() - HEEDED - INERT
    return sorted(name for name in others if not (name.endswith("_token") and _names_a_token(folder.config[name])))


def apply(tokenizer: Tokenizer, folder: Folder) -> Tokenizer:
    """`tokenizer`, read from ``tokenizer.json``, as the configuration wants it; it may be changed or replaced."""
    tokenizer.encode_special_tokens = bool(folder.config.get("split_special_tokens"))
    prefix = folder.config.get("add_prefix_space")
    if isinstance(prefix, bool) and _heeds_prefix(tokenizer, folder):
        tokenizer = _with_prefix_space(tokenizer, prefix)
    return tokenizer


def add_ends(tokenizer: Tokenizer, folder: Folder) -> None:
    """Makes encoding add the tokens that the configuration says it adds. Call when all tokens are known."""
    if folder.tokenizer_class not in _ADD_ENDS:
        return
    encoded = tokenizer.encode("a", add_special_tokens=True).ids
    ends: list[list[tuple[str, int]]] = []
    differs = False
    for name, place in (("bos", slice(1)), ("eos", slice(-1, None))):
        token = folder.named.get(f"{name}_token")
        number = None if token is None else tokenizer.token_to_id(token.content)
        wanted = folder.config.get(f"add_{name}_token")
        if token is None or number is None:
            ends.append([])
            continue
        added = encoded[place] == [number]
        ends.append([(token.content, number)] if (wanted if isinstance(wanted, bool) else added) else [])
        differs |= added != bool(ends[-1])
    if differs:
        before, after = ([spelling for spelling, _ in end] for end in ends)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], pair=None, special_tokens=[*ends[0], *ends[1]]
        )


def _names_a_token(value: object) -> bool:
    return isinstance(value, str | dict | None)


def _heeds_prefix(tokenizer: Tokenizer, folder: Folder) -> bool:
    if folder.tokenizer_class in _AS_IT_IS:
        return folder.model_type == "qwen2"
    return not (folder.tokenizer_class == "LlamaTokenizer" and "ByteLevel" in str(tokenizer.pre_tokenizer))


def _with_prefix_space(tokenizer: Tokenizer, wanted: bool) -> Tokenizer:
    """`tokenizer`, putting a space before a text that has none, or not doing so."""
    parts = {name: _steps(getattr(tokenizer, name)) for name in ("normalizer", "pre_tokenizer", "decoder")}
    changed = _prefixed({name: [dict(step) for step in steps] for name, steps in parts.items()}, wanted)
    if changed == parts:
        return tokenizer
    file = json.loads(tokenizer.to_str())
    keys = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
    for name, steps in changed.items():
        file[name] = {"type": "Sequence", keys[name]: steps} if len(steps) > 1 else steps[0] if steps else None
    return added.edited(tokenizer, file)


def _prefixed(parts: dict[str, list[dict[str, Any]]], wanted: bool) -> dict[str, list[dict[str, Any]]]:
    """The steps of a tokenizer by part, changed. What puts the space there, and what takes it away in the answer:

    ByteLevel  add_prefix_space    keeps it
    Metaspace  prepend_scheme      its counterpart among the decoders takes it away
    Prepend    (a normalizer)      Strip
    """
    marks = [step for step in parts["normalizer"] if step["type"] == "Prepend"]
    for step in parts["pre_tokenizer"]:
        if step["type"] == "ByteLevel":
            step["add_prefix_space"] = wanted
    metaspaces = [step for part in ("pre_tokenizer", "decoder") for step in parts[part] if step["type"] == "Metaspace"]
    for step in metaspaces:
        never = step.get("prepend_scheme") == "never"
        step["prepend_scheme"] = ("first" if never else step.get("prepend_scheme", "always")) if wanted else "never"
    words_marked = any(step["type"] == "Replace" and step["content"] == "▁" for step in parts["normalizer"])
    strips = [step for step in parts["decoder"] if step["type"] == "Strip"]
    if not wanted:
        parts["normalizer"] = [step for step in parts["normalizer"] if step not in marks]
        if marks or metaspaces:
            parts["decoder"] = [step for step in parts["decoder"] if step not in strips]
    elif words_marked and not marks and not metaspaces:
        parts["normalizer"].insert(0, {"type": "Prepend", "prepend": "▁"})
        if not strips:
            parts["decoder"].append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return parts


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer, as its file describes them."""
    if part is None:
        return []
    described = json.loads(part.__getstate__())
    nested = next((described[key] for key in ("normalizers", "pretokenizers", "decoders") if key in described), None)
    return nested if described["type"] == "Sequence" and nested is not None else [described]

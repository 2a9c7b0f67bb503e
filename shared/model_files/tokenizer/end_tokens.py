"""Which tokens end an answer: one set, from every place that names some.

    config.json, generation_config.json    eos_token_id: one id or several
    tokenizer_config.json,                 eos_token: a spelling
    special_tokens_map.json
    the chat template                      the token behind each message, if it is one that only ever is there

The places are added up, for each of them is right for some models: base models that were taught to chat have the new
end in the tokenizer alone, Llama 3 has it in the generation config alone. Only an ordinary token of config.json does
not count where generation_config.json names others.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from radixmesh.shared.model_files.json_file import optional_object, whole
from radixmesh.shared.model_files.tokenizer.folder import Folder

log = logging.getLogger(__name__)

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens that chat templates put behind a message and nowhere else; not all files call them special."""


def end_token_ids(directory: Path, vocab_size: int) -> tuple[int, ...]:
    """Ids of the tokens after which nothing belongs to the answer; ascending, may be empty.

    Args:
        vocab_size: of the model. What is no token of it is left out with a warning: the model cannot say it.

    Raises:
        ModelLoadError: a file is malformed; the text names it.
    """
    folder = Folder(directory)
    recommended, configured = (
        _known(folder, vocab_size, _configured(directory / name), f"{directory / name}: eos_token_id")
        for name in ("generation_config.json", "config.json")
    )
    if recommended:
        # Many a config.json has its class's default, which is an ordinary word of the model's own vocabulary.
        special = {token.content for token in (*folder.declared, *folder.listed) if token.special}
        configured &= {folder.id_of(spelling) for spelling in special}
    named = _known(folder, vocab_size, folder.ends, f"{directory / 'tokenizer_config.json'}: eos_token")
    return tuple(sorted({*recommended, *configured, *named, *_turn_ends(folder, vocab_size)}))


def _configured(path: Path) -> list[object]:
    """The values of ``eos_token_id`` in a file; digits in a string are an id too, not the spelling of one."""
    fields = optional_object(path)
    nested = fields.get("text_config")
    found: list[object] = []
    for part in (fields, nested if isinstance(nested, dict) else {}):
        value = part.get("eos_token_id")
        found += value if isinstance(value, list) else [] if value is None else [value]
    return [int(item) if isinstance(item, str) and item.isdecimal() and len(item) < 20 else item for item in found]


def _known(folder: Folder, vocab_size: int, items: Iterable[object], where: str) -> set[int]:
    """The ids of `items`, which may be numbers or spellings."""
    found = set()
    for item in items:
        number = folder.id_of(item) if isinstance(item, str) else whole(item)
        if number is not None and 0 <= number < vocab_size:
            found.add(number)
        elif item not in folder.class_names.values():
            text = "%s: %.80r is left out: it is no token of the vocabulary (0 to %d)"
            log.warning(text, where, item, vocab_size - 1)
    return found


def _turn_ends(folder: Folder, vocab_size: int) -> set[int]:
    template = folder.chat_template
    text = "".join(template.values()) if isinstance(template, dict) else template or ""
    numbers = (folder.id_of(spelling) for spelling in TURN_ENDS if spelling in text)
    return {number for number in numbers if number is not None and number < vocab_size}

"""Which tokens end an answer: one set, from every place that names some.

    config.json, generation_config.json    eos_token_id: one id or several
    tokenizer_config.json,                 eos_token: a spelling
    special_tokens_map.json
    the chat template                      the special token behind each message, if it is one that only ever is there

The places are added up, for each of them is right for some models: base models that were taught to chat have the new
end in the tokenizer alone, Llama 3 has it in the generation config alone. Only an ordinary token of config.json does
not count where generation_config.json names others.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from radixmesh.shared.tokenizer_files.folder import Folder, optional

log = logging.getLogger(__name__)

TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_turn|>")
"""Special tokens that chat templates put behind a message and nowhere else."""


def end_token_ids(directory: Path, vocab_size: int) -> tuple[int, ...]:
    """Ids of the tokens after which nothing belongs to the answer; ascending, may be empty.

    Args:
        vocab_size: of the model. An id outside is left out with a warning: the model cannot say it.

    Raises:
        ModelLoadError: a file is malformed; the text names it.
    """
    found = set()
    for number, where in _named(Folder(directory)):
        if 0 <= number < vocab_size:
            found.add(number)
        else:
            log.warning("%s names end token %d, outside the vocabulary of %d: left out", where, number, vocab_size)
    return tuple(sorted(found))


def _named(folder: Folder) -> Iterator[tuple[int, Path]]:
    recommended = list(_configured(folder, "generation_config.json"))
    yield from recommended
    special = {token.id for token in (*folder.declared, *folder.listed) if token.special}
    for number, path in _configured(folder, "config.json"):
        # Many a config.json has its class's default, which is an ordinary word of the model's own vocabulary.
        if not recommended or number in special:
            yield number, path
    for spelling in folder.ends:
        yield from _by_spelling(folder, spelling, folder.directory / "tokenizer_config.json")
    yield from _turn_ends(folder)


def _configured(folder: Folder, name: str) -> Iterator[tuple[int, Path]]:
    path = folder.directory / name
    fields = optional(path)
    nested = fields.get("text_config")
    for part in (fields, nested if isinstance(nested, dict) else {}):
        value = part.get("eos_token_id")
        for item in value if isinstance(value, list) else [value]:
            yield from _by_id(folder, item, path)


def _by_id(folder: Folder, item: object, path: Path) -> Iterator[tuple[int, Path]]:
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, str):
        yield from _by_spelling(folder, item, path)
    elif isinstance(item, int) and not isinstance(item, bool):
        yield item, path
    elif item is not None:
        log.warning("%s: eos_token_id must be a token id or a list of them, not %.80r: left out", path, item)


def _by_spelling(folder: Folder, spelling: str, path: Path) -> Iterator[tuple[int, Path]]:
    number = folder.id_of(spelling)
    if number is not None:
        yield number, path
    elif spelling not in folder.class_names.values():
        log.warning("%s names the end token %.80r, to which no file gives an id: left out", path, spelling)


def _turn_ends(folder: Folder) -> Iterator[tuple[int, Path]]:
    template = folder.chat_template
    text = "".join(template.values()) if isinstance(template, dict) else template or ""
    if used := [spelling for spelling in TURN_ENDS if spelling in text]:
        special = {token.content: token.id for token in (*folder.declared, *folder.listed) if token.special}
        for spelling in used:
            if (number := special.get(spelling)) is not None:
                yield number, folder.directory / "tokenizer_config.json"

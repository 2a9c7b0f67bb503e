"""Tokenizers that take `transformers` to read: directories without a ``tokenizer.json``, and fields nobody knows here.

A ``tokenizer.model`` is read as it stands too: by the class of `transformers` that goes by the file alone, whatever
class the configuration names. Those lose leading spaces, normalization and more.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from radixmesh.shared.errors import ModelLoadError
from radixmesh.shared.host.scratch import Scratch
from radixmesh.shared.model_files.json_file import optional_object
from radixmesh.shared.model_files.tokenizer.folder import Folder
from radixmesh.shared.model_files.tokenizer.sentencepiece_file import Form, form_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_SAMPLE = (
    "Once upon a time, it's 1234.5 o'clock!\n\n  def f(x):\n\treturn x  # naïve café e\u0301 ﬁ Ａ \u00a0",
    " leading and trailing ",
    "Ünïcödé: 漢字かな交じり文, Привет, مرحبا, हिन्दी",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467 <|im_end|></s>[INST] <s>x",
)
_PACKAGES = {
    Form.SENTENCEPIECE: {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"},
    Form.TIKTOKEN: {"tiktoken": "tiktoken"},
}
"""Packages that a form takes to read, and the module by which each is known."""

_BOS_FAMILIES = ("llama", "mistral", "gemma")
"""Values of ``model_type``, and classes, whose tokenizers put BOS before every text unless told otherwise."""


class PythonTokenizer:
    """A tokenizer of `transformers` that has no `Tokenizer` inside, by the latter's names."""

    decoder = None
    encode_special_tokens = False

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer

    def ids(self, text: str, special: bool) -> list[int]:
        """The ids of `text`; with `special`, also of what is added around it."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
        return found

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def get_vocab(self) -> dict[str, int]:
        found: dict[str, int] = self._tokenizer.get_vocab()
        return found

    def get_vocab_size(self) -> int:
        return len(self._tokenizer)

    def id_to_token(self, number: int) -> str | None:
        token = self._tokenizer.convert_ids_to_tokens(number) if number < len(self._tokenizer) else None
        return token if isinstance(token, str) else None

    def token_to_id(self, spelling: str) -> int | None:
        return self.get_vocab().get(spelling)

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        found: dict[int, AddedToken] = self._tokenizer.added_tokens_decoder
        return found


def convert(folder: Folder) -> Tokenizer | PythonTokenizer:
    """Reads a directory without a ``tokenizer.json``. Raises ModelLoadError."""
    model = folder.directory / "tokenizer.model"
    if model.is_file():
        loaded = _sentencepiece(folder, model)
    else:
        try:
            loaded = _auto(folder)
        except Exception as error:  # transformers raises many unrelated types for tokenizers it cannot read
            text = f"{folder.directory} has no tokenizer.json, and cannot be converted: {error}"
            raise ModelLoadError(text) from error
    # Without any tokenizer file, transformers gives an empty tokenizer of the model's family.
    if not loaded.encode("a", add_special_tokens=False):
        raise ModelLoadError(
            f"{folder.directory} has no tokenizer.json, nor another usable tokenizer (tokenizer.model, vocab.json)"
        )
    inside = _inside(loaded)
    return PythonTokenizer(loaded) if inside is None else inside


def _sentencepiece(folder: Folder, path: Path) -> "PreTrainedTokenizerBase":
    form = form_of(path)
    if form is Form.OTHER:
        raise ModelLoadError(f"{path} is no sentencepiece model, and there is no tokenizer.json")
    for package, module in _PACKAGES[form].items():
        if not _installed(module):
            raise ModelLoadError(
                f"{path} takes the package {package} to read, which is not installed; a tokenizer.json takes none"
            )
    try:
        return _auto(folder) if form is Form.TIKTOKEN else _by_the_model(folder, path)
    except Exception as error:  # transformers and sentencepiece raise many unrelated types
        # The last thing that transformers tries, and speaks of, is a form that the file does not have.
        beside_the_point = form is Form.SENTENCEPIECE and isinstance(error, ImportError)
        why = "transformers does not understand this sentencepiece model" if beside_the_point else error
        raise ModelLoadError(f"{path} cannot be converted: {why}") from error


def _by_the_model(folder: Folder, path: Path) -> "PreTrainedTokenizerBase":
    from sentencepiece import SentencePieceProcessor
    from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # protobuf makes it when run
    from transformers import PreTrainedTokenizerFast

    SentencePieceProcessor(model_file=str(path))  # its own word on a broken file is the better one
    data = path.read_bytes()
    prefix = folder.config.get("add_prefix_space")
    if isinstance(prefix, bool):
        model = ModelProto.FromString(data)
        model.normalizer_spec.add_dummy_prefix = prefix
        data = model.SerializeToString()
    kind = (folder.tokenizer_class or folder.model_type).removesuffix("Tokenizer").removeprefix("Code").lower()
    with _copy(folder, folder.config) as directory:
        (directory / path.name).unlink()
        (directory / path.name).write_bytes(data)
        loaded: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(
            directory,
            local_files_only=True,
            legacy=True,  # as in every tokenizer.json that was made of such a model
            add_bos_token=folder.config.get("add_bos_token", kind in _BOS_FAMILIES),
        )
        return loaded


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def heeded(folder: Folder, fields: Collection[str], file: Tokenizer) -> Tokenizer | None:
    """The tokenizer that `transformers` makes of `folder`, if `fields` of its configuration change the ids it gives.

    Args:
        file: the tokenizer without them. Where it differs from the result, a warning says so.
    """
    names = ", ".join(fields)
    try:
        with_them, without = _inside(_auto(folder)), _inside(_auto(folder, without=fields))
    except Exception as error:  # noqa: BLE001  whatever transformers raises: tokenizer.json can be read without it
        log.warning("%s: what tokenizer_config.json means by %s is not known: %s", folder.directory, names, error)
        return None
    texts = _sample(file)
    if with_them is None or without is None or _ids(with_them, texts) == _ids(without, texts):
        return None
    if _ids(with_them, texts) != _ids(file, texts):
        text = "%s: %s of tokenizer_config.json makes other tokens of a text than tokenizer.json alone: it is heeded"
        log.warning(text, folder.directory, names)
    return with_them


def _auto(folder: Folder, *, without: Collection[str] = ()) -> "PreTrainedTokenizerBase":
    """What `transformers` makes of `folder`, as if the configuration did not have the fields of `without`."""
    from transformers import AutoTokenizer  # here, because it takes two seconds in which the service can be seen

    kept = {name: value for name, value in folder.config.items() if name not in without}
    with _copy(folder, kept) as directory:
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            directory, trust_remote_code=False, local_files_only=True
        )
        return loaded


@contextmanager
def _copy(folder: Folder, config: Mapping[str, Any]) -> Iterator[Path]:
    """A directory with the files of `folder` but the weights, and another configuration of the tokenizer.

    The JSON files in it are in the one encoding that `transformers` reads.
    """
    with Scratch("tokenizer") as scratch:
        directory = scratch.path
        for path in folder.directory.iterdir():
            if path.suffix not in (".safetensors", ".bin", ".pth", ".gguf"):
                (directory / path.name).symlink_to(path.resolve())
        files = {"config.json": optional_object(folder.directory / "config.json"), "tokenizer_config.json": config}
        for file, fields in files.items():
            if (folder.directory / file).is_file():
                (directory / file).unlink()
                (directory / file).write_text(json.dumps(fields), encoding="utf-8")
        yield directory


def _inside(loaded: "PreTrainedTokenizerBase") -> Tokenizer | None:
    inside = getattr(loaded, "backend_tokenizer", None)
    return inside if isinstance(inside, Tokenizer) else None


def _sample(tokenizer: Tokenizer) -> list[str]:
    """Texts on which two tokenizers of one directory are compared, some of them of its own words."""
    size = tokenizer.get_vocab_size()
    words = tokenizer.decode(list(range(0, size, size // 64 + 1)), skip_special_tokens=False)
    return [*_SAMPLE, words, words.title(), f" {words.upper()}  "]


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=special).ids for text in texts for special in (False, True)]

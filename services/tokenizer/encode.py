"""A request to token ids, by the tokenizer that comes with the model."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from numpy.typing import NDArray

from radixmesh.services.tokenizer.chat import ChatRenderer
from radixmesh.services.tokenizer.limits import Limits, check_ids, check_length, check_token_params
from radixmesh.shared.errors import ErrorCode, ModelLoadError, RequestError
from radixmesh.shared.messages import Submit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Encoder:
    """A tokenizer, for encoding only. All methods may be called from several threads."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._chat = ChatRenderer(tokenizer)
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
        vocabulary = tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._longest = max(map(len, vocabulary), default=1)

    @property
    def has_chat_template(self) -> bool:
        return self._chat.has_template

    def encode(self, submit: Submit, limits: Limits) -> NDArray[np.int32]:
        """The prompt of `submit`, int32 [T], without what earlier attempts generated.

        Raises:
            RequestError: the request is malformed, cannot be encoded, or does not fit `limits`.
        """
        given = (submit.text is not None) + (submit.token_ids is not None) + (submit.messages is not None)
        if given != 1:
            raise RequestError(ErrorCode.INVALID_REQUEST, "give exactly one of text, token ids and messages")
        if submit.messages is not None:
            param = "messages"
            text = self._chat.render(submit.messages, submit.tools, submit.chat_template_kwargs)
            ids = self._encode(text, limits, param, special=False)
        elif submit.text is not None:
            param = "prompt"
            ids = self._encode(submit.text, limits, param, special=True)
        else:
            param = "prompt"
            ids = submit.token_ids if submit.token_ids is not None else np.empty(0, np.int32)
        check_ids(ids, limits, param)
        check_length(len(ids), submit, limits, param)
        check_token_params(submit.params, limits)
        return ids

    def _encode(self, text: str, limits: Limits, param: str, *, special: bool) -> NDArray[np.int32]:
        """Ids of `text`; with `special`, also what the tokenizer adds around it (such as a BOS token).

        Text of more characters than the context could hold if each token were the vocabulary's longest is refused
        before it costs time.
        """
        most = limits.max_model_len * self._longest
        if limits.max_model_len and len(text) > most:
            raise RequestError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"the prompt has {len(text)} characters; the model's context length of {limits.max_model_len} tokens "
                f"cannot hold more than {most}",
                param=param,
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                ErrorCode.INVALID_REQUEST,
                f"the text is not valid Unicode: a lone surrogate at character {error.start}",
                param=param,
            ) from error
        try:
            ids = self._ids(text, special)
        except Exception as error:  # tokenizers raises bare Exceptions, about characters it has no token for
            raise RequestError(
                ErrorCode.INVALID_REQUEST, f"the tokenizer cannot encode this text: {error}", param=param
            ) from error
        return np.array(ids, dtype=np.int32)

    def _ids(self, text: str, special: bool) -> list[int]:
        if self._backend is None:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special)
            return ids
        # `encode` would hold the GIL, and with it the whole service, for as long as it takes; the batch form does not.
        fast: list[int] = self._backend.encode_batch_fast([text], add_special_tokens=special)[0].ids
        return fast


def load(directory: Path) -> Encoder:
    """Reads the tokenizer files in `directory`; never runs code that comes with them. Raises ModelLoadError."""
    try:
        from transformers import AutoTokenizer  # here, because it takes a second in which the service can be seen

        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises many unrelated types for tokenizers that it cannot read
        raise ModelLoadError(f"{directory}: cannot load the tokenizer: {error}") from error
    # Without any tokenizer file, transformers gives an empty tokenizer of the model's family.
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ModelLoadError(f"{directory} has no usable tokenizer (tokenizer.json or tokenizer.model)")
    _check_template(directory, tokenizer)
    return Encoder(tokenizer)


def _check_template(directory: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises ModelLoadError for a chat template that does not even parse."""
    if not tokenizer.chat_template:
        return
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except jinja2.TemplateSyntaxError as error:
        text = f"{directory}: the chat template does not parse: {error.message} (line {error.lineno})"
        raise ModelLoadError(text) from error
    except Exception as error:  # noqa: BLE001  it parses; what it wants of messages is the clients' business
        log.debug("the chat template does not take a lone user message: %s", error)

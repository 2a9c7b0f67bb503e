"""A request to token ids, by the tokenizer that comes with the model."""

from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray

from radixmesh.services.tokenizer.chat.reasoning import AUTO, ReasoningTags
from radixmesh.services.tokenizer.chat.renderer import ChatRenderer, begun_answer
from radixmesh.services.tokenizer.limits import Limits, check_ids, check_length, check_token_params
from radixmesh.shared.errors import ErrorCode, ModelLoadError, RequestError
from radixmesh.shared.messages import Submit
from radixmesh.shared.model_files.tokenizer import reader
from radixmesh.shared.model_files.tokenizer.conversion import PythonTokenizer


class Encoded(NamedTuple):
    """A prompt, and how the answer to it will tell thoughts from text."""

    ids: NDArray[np.int32]
    """int32 [T], without what earlier attempts generated."""
    reasoning_tags: ReasoningTags | None = None
    """If the two are to be told apart."""
    reasoning_open: bool = False
    """The prompt ends inside of thoughts."""


class Encoder:
    """A tokenizer, for encoding only. All methods may be called from several threads."""

    def __init__(self, found: reader.TokenizerFiles, reasoning_parser: str = AUTO) -> None:
        """Raises jinja2.TemplateSyntaxError."""
        self._chat = ChatRenderer(found.chat_template, found.special_tokens, reasoning_parser)
        self._tokenizer = found.tokenizer
        self.vocab_size = found.vocab_size
        self.fingerprint = found.fingerprint
        self._longest = found.longest

    @property
    def has_chat_template(self) -> bool:
        return self._chat.has_template

    def encode(self, submit: Submit, limits: Limits) -> Encoded:
        """The prompt of `submit`.

        Raises:
            RequestError: the request is malformed, cannot be encoded, or does not fit `limits`.
        """
        given = (submit.text is not None) + (submit.token_ids is not None) + (submit.messages is not None)
        if given != 1:
            raise RequestError(ErrorCode.INVALID_REQUEST, "give exactly one of text, token ids and messages")
        special = submit.add_special_tokens
        tags, opened = None, False
        if submit.messages is not None:
            param = "messages"
            text = self._chat.render(submit.messages, submit.tools, submit.chat_template_kwargs)
            ids = self._encode(text, limits, param, special=bool(special))
            tags = self._chat.reasoning_tags if submit.separate_reasoning else None
            opened = tags is not None and tags.opened(
                text, begun_answer(submit.messages, submit.chat_template_kwargs, tags)
            )
        elif submit.text is not None:
            param = "prompt"
            ids = self._encode(submit.text, limits, param, special=special is not False)
        else:
            param = "prompt"
            ids = submit.token_ids if submit.token_ids is not None else np.empty(0, np.int32)
        check_ids(ids, limits, param)
        check_length(len(ids), submit, limits, param)
        check_token_params(submit.work.params, limits)
        return Encoded(ids, tags, opened)

    def _encode(self, text: str, limits: Limits, param: str, *, special: bool) -> NDArray[np.int32]:
        """Ids of `text`; with `special`, also what the tokenizer adds around it (such as a BOS token).

        Text of more characters than the context could hold if each token were the vocabulary's longest is refused
        before it costs time.
        """
        most = limits.max_model_len * self._longest
        if limits.max_model_len and len(text) > most:
            raise RequestError(
                ErrorCode.CONTEXT_LENGTH_EXCEEDED,
                f"the prompt has {len(text)} characters, which is longer than the model's context length of "
                f"{limits.max_model_len} tokens can hold: at most {most}",
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
        if isinstance(self._tokenizer, PythonTokenizer):
            return self._tokenizer.ids(text, special)
        # `encode` would hold the GIL, and with it the whole service, for as long as it takes; the batch form does not.
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids


def load(directory: Path, reasoning_parser: str = AUTO) -> Encoder:
    """Reads the tokenizer files in `directory`; never runs code that comes with them. Raises ModelLoadError."""
    try:
        return Encoder(reader.read(directory), reasoning_parser)
    except jinja2.TemplateSyntaxError as error:
        text = f"{directory}: the chat template does not parse: {error.message} (line {error.lineno})"
        raise ModelLoadError(text) from error

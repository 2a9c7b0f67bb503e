"""A byte-level BPE tokenizer for the bundled models.

Two things differ from the usual pattern, both so that a small model can copy: every digit is a token of its own, and a
capitalised word never takes the space before it, so that a name is spelled alike in a sentence and in a JSON string.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.corpus.conversation import Conversation, conversations

VOCAB = 4096
PAD, START, END = 0, 1, 2
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Never shown to a user; their ids are PAD, START and END."""
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
"""Single tokens that are part of the text."""

PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)\b"
    r"|\p{Lu}+\p{Ll}*"
    r"| ?\p{Ll}+"
    r"|\p{N}"
    r"|[\p{L}\p{M}]+"
    r"| ?[^\s\p{L}\p{N}\p{M}]+\n*"
    r"|\s*\n+|\s+(?!\S)|\s+"
)
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def make(texts: Iterator[str]) -> Tokenizer:
    """Learns the merges from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in (*CONTROL, *MARKUP)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, max_length: int) -> None:
    """Writes Hugging Face's files into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] in CONTROL
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": CONTROL[END],
        "pad_token": CONTROL[PAD],
        "additional_special_tokens": [CONTROL[START]],
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "chat_template": TEMPLATE.read_text(encoding="utf-8"),
    }
    for name, data, indent in (("tokenizer.json", content, None), ("tokenizer_config.json", config, 1)):
        (directory / name).write_text(json.dumps(data, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")


def texts(count: int, seed: int) -> Iterator[str]:
    """The words of `count` conversations, one message each time; every 12th conversation also in capitals, so that
    capitals can be written with few tokens.
    """
    for index, conversation in enumerate(islice(conversations(seed, "train"), count)):
        for message in conversation.messages:
            yield message["role"]
            for text in (message.get("content"), message.get("reasoning_content")):
                yield text or ""
                if text and index % 12 == 0:
                    yield text.upper()
            for call in message.get("tool_calls", ()):
                yield json.dumps(call["function"], ensure_ascii=False)
        if conversation.tools:
            yield json.dumps(conversation.tools, ensure_ascii=False)


@cache
def load(directory: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(str(directory))


def render(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, **options: Any) -> str:
    """The conversation's text, by the chat template."""
    tools: list[Any] | None = list(conversation.tools) or None
    return str(tokenizer.apply_chat_template(list(conversation.messages), tools=tools, tokenize=False, **options))

"""Small tokenizers of the two kinds that models come with, made on the spot."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

_TEXT = """
The quick brown fox jumps over the lazy dog while the small model counts its tokens, one after another.
A server answers many requests at once: some are long, some are short, and all of them want their words soon.
Il était une fois une forêt où les élèves répétaient: naïve, café, garçon. Ünïcödé ist schön, sagt der Bär.
Once upon a time there was a little girl who wanted to read everything there is to read about trees.
"""

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'villain' %}{{ raise_exception('no villains here') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{% if mood %}[{{ mood }}]{% endif %}"
)
TOOL_TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call.function.arguments.city }}{% endfor %}{% endfor %}"
)


@cache
def byte_level() -> Tokenizer:
    """Byte-level BPE, 400 tokens. Ids 0, 1, 2 are <|endoftext|>, <|im_start|> and <|im_end|>; 3 is not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    tokenizer.add_tokens(["<tool call｜>"])
    return tokenizer


@cache
def sentencepiece() -> Tokenizer:
    """Llama's kind: words marked by ▁, all bytes as <0x..>, BOS before every text. 0 <unk>, 1 <s>, 2 </s>."""
    vocab = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>"])}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges: list[tuple[str, str]] = []

    def add(token: str) -> None:
        vocab.setdefault(token, len(vocab))

    for char in "▁abcdefghijklmnopqrstuvwxyzéüß.,:":
        add(char)
    for word in ("▁the", "▁quick", "▁fox", "▁text", "ing", "▁été", "▁▁"):
        for end in range(2, len(word) + 1):
            add(word[:end])
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def metaspace() -> Tokenizer:
    """As `sentencepiece`, with the decoder of the T5 family."""
    tokenizer = Tokenizer.from_str(sentencepiece().to_str())
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def wordpiece() -> Tokenizer:
    """BERT's kind, in which a token's text depends on its neighbours."""
    words = ["[UNK]", "the", "quick", "fox", "##es", "##ing", ".", ",", "é", "don", "'", "t"]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


def save_model(path: Path, tokenizer: Tokenizer, **config: Any) -> Path:
    """Writes what services need of a model directory: tokenizer and configuration, no weights."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (path / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    sizes = {"model_type": "llama", "max_position_embeddings": 64, "vocab_size": tokenizer.get_vocab_size()}
    (path / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    return path


def save_chat_model(path: Path, template: str | None = CHAT_TEMPLATE) -> Path:
    """`byte_level` with a chat template."""
    extra = {"chat_template": template} if template is not None else {}
    return save_model(path, byte_level(), eos_token="<|im_end|>", pad_token="<|endoftext|>", **extra)

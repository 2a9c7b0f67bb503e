"""Small random Hugging Face checkpoints and a tokenizer for them, made on the fly."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
EOS_ID = 2

_CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}
_SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": EOS_ID,
}
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 32},
}


def make_checkpoint(path: Path, family: str, *, seed: int = 0, shard_size: str = "5GB", **overrides: Any) -> Any:
    """Save a random float32 checkpoint of `family` under `path`; returns the transformers model, for reference.

    `overrides` are fields of its config. The weights are wide enough that greedy output varies and that the two
    best logits are far apart: norms and biases are random too, so that a layer that forgets them is noticed.
    """
    config_class, model_class = _CLASSES[family]
    config = config_class(**{**_SIZES, **_FAMILY_DEFAULTS[family], **overrides})
    generator = torch.Generator().manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Small embeddings: in a tied model large ones would make every token predict itself.
            std = 0.05 if "embed_tokens" in name else 0.3 if parameter.dim() == 1 else 0.25
            parameter.normal_(0.0, std, generator=generator)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    model.save_pretrained(path, max_shard_size=shard_size)
    return model


def change_config(path: Path, **fields: Any) -> None:
    """Lays `fields` over the config.json of the checkpoint `path`."""
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def settle(model: Any, logits: float = 3.0) -> None:
    """Makes `model` behave more like a trained one: layers keep the size of what they get, logits spread by `logits`.

    Then rounding errors stay as small as they are in use; as `make_checkpoint` leaves it, they grow in every layer.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                gain = 1.0 if "embed_tokens" in name else logits if "lm_head" in name else 1.2
                parameter.mul_(gain * parameter.shape[1] ** -0.5 / parameter.std())


_TEXT = """
The quick brown fox jumps over the lazy dog while the small model counts its tokens, one after another.
A server answers many requests at once: some are long, some are short, and all of them want their words soon.
def attend(query, keys, values): return softmax(query @ keys.T) @ values  # as in the paper
{"name": "radix", "value": [1, 2, 3, 4.5], "nested": {"true": true, "null": null}}
Once upon a time there was a little girl who wanted to read everything there is to read about trees and numbers.
When the river rises, the old bridge closes; people wait, complain about the weather, and walk home together.
Every morning the baker measures flour, water, salt and yeast, kneads them slowly, and lets the dough rest.
She went to the library, and there the books were sorted by their first letters, then by their second, and so on.
"""
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(path: Path, vocab_size: int = 512) -> None:
    """Train a byte-level BPE tokenizer and save it so that `AutoTokenizer` loads it.

    Ids 0, 1, 2 are <|endoftext|>, <|im_start|> and <|im_end|>, the end of sequence; any text can be encoded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the training text gives {tokenizer.get_vocab_size()} tokens, not {vocab_size}")
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

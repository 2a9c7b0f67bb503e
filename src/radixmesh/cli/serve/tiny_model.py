"""A Llama of random weights, so that a mesh can be tried with nothing to download.

One megabyte-sized model, always the same: byte-level tokens (every UTF-8 text can be encoded, one token a byte) and
weights from a fixed seed. Its output is noise, but printable noise: the rows of the output matrix that stand for
printable ASCII are larger than the others.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "radixmesh-tiny"
VERSION = "1"
"""Raise it when anything below changes: directories of other versions are left alone."""

BYTES = 256
SPECIALS = ("<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
BOS, EOS, END = BYTES, BYTES + 1, BYTES + 5
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 128, 4, 4, 2, 384

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": BYTES + len(SPECIALS),
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HIDDEN // HEADS,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": BOS,
    "eos_token_id": [EOS, END],
    "torch_dtype": "float32",
}

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "radixmesh"


def ensure(home: Path | None = None) -> Path:
    """The model's directory; written first if it is not there yet. Safe to call from several processes at once.

    Raises:
        OSError: it cannot be written.
    """
    directory = (home or cache_home()) / f"{NAME}-v{VERSION}"
    if (directory / "config.json").is_file():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=directory.parent))
    try:
        write(draft)
        draft.replace(directory)
    except OSError:
        if not (directory / "config.json").is_file():  # else another process was faster, with the same bytes
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


def write(directory: Path) -> None:
    """Writes the model's files into the existing `directory`. Raises OSError."""
    from safetensors.numpy import save_file

    _tokenizer().save(str(directory / "tokenizer.json"))
    save_file(_weights(), directory / "model.safetensors", {"format": "pt"})
    generation = {"bos_token_id": BOS, "eos_token_id": [EOS, END], "temperature": 1.0}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[1],
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    for name, content in (
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer_config),
        ("config.json", CONFIG),
    ):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tokenizer() -> Any:
    """Byte-level BPE without a single merge: token i of the first 256 is one byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer


def _weights() -> dict[str, NDArray[np.float32]]:
    """Hugging Face's names; each matrix is [out, in]."""
    random = np.random.default_rng(20240)
    head = HIDDEN // HEADS

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return random.standard_normal((rows, columns), np.float32) / np.float32(columns**0.5)

    weights = {
        "model.embed_tokens.weight": matrix(CONFIG["vocab_size"], HIDDEN) * np.float32(4),
        "lm_head.weight": matrix(CONFIG["vocab_size"], HIDDEN) * _row_sizes(),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        weights |= {
            f"{layer}.input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{layer}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{layer}.self_attn.q_proj.weight": matrix(HEADS * head, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": matrix(KV_HEADS * head, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": matrix(KV_HEADS * head, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * head),
            f"{layer}.mlp.gate_proj.weight": matrix(INNER, HIDDEN),
            f"{layer}.mlp.up_proj.weight": matrix(INNER, HIDDEN),
            f"{layer}.mlp.down_proj.weight": matrix(HIDDEN, INNER),
        }
    return weights


def _row_sizes() -> NDArray[np.float32]:
    """Scale of each row of the output matrix, [V, 1]."""
    from tokenizers import pre_tokenizers

    sizes = np.full((CONFIG["vocab_size"], 1), 0.05, np.float32)
    for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())):
        if "!" <= char <= "~" or char == "Ġ":  # Ġ is how byte-level BPE writes a space
            sizes[i] = 5.0
    return sizes

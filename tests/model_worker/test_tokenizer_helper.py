"""The tests' own tokenizer loads the way real ones do."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.checkpoints import EOS_ID, FAMILIES, make_checkpoint, make_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_the_test_tokenizer_loads_beside_every_family(family: str, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, family)
    make_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 512
    assert tokenizer.eos_token_id == EOS_ID
    text = 'Once upon a time: {"naïve": "日本 🙂"}\n'
    assert tokenizer.encode(text) == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

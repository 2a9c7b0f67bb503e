"""A model directory as a stranger may have left it: served as well as it can be, by real processes."""

import json
import urllib.request
from pathlib import Path

import openai
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.serving import ServeProcess

FLAGS = ("--max-slots", "4", "--threads", "1", "--grpc-port", "-1")
PROMPT = [5, 6, 7, 300, 41]

CONFIG = {
    "architectures": None,
    "bos_token_id": 99999,
    "eos_token_id": [2.0, -1],
    "torch_dtype": None,
    "dtype": "auto",
    "quantization_config": {},
    "max_position_embeddings": 40_000_000,
    "tie_word_embeddings": True,
}
RECOMMENDED = {
    "top_k": -1,
    "top_p": 0.0,
    "temperature": 2.5,
    "max_new_tokens": 0,
    "eos_token_id": 99999,
    "bos_token_id": -1,
    "repetition_penalty": "1.2",
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Its config says that its head is tied, and it is not."""
    path = tmp_path / "odd"
    make_tokenizer(path)
    make_checkpoint(path, "llama", tie_word_embeddings=True)
    tensors = load_file(path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").rename(path / "sane.json")
    config = json.loads((path / "sane.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **CONFIG}))
    (path / "generation_config.json").write_text(json.dumps(RECOMMENDED), encoding="utf-8-sig")
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    return path


def test_it_starts_and_says_what_its_weights_say(odd: Path) -> None:
    with ServeProcess(*FLAGS, "--model", str(odd)) as mesh:
        with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0) as client:
            answer = client.completions.create(
                model=mesh.model,
                prompt=PROMPT,
                max_tokens=12,
                temperature=0,
                extra_body={"ignore_eos": True, "repetition_penalty": 1},
            )
        worker = psutil.Process(next(iter(mesh.pids("model_worker").values())))
        assert worker.memory_info().rss < 1 << 30
        with urllib.request.urlopen(f"{mesh.url}/v1/models", timeout=10) as models:  # noqa: S310
            assert json.load(models)["data"][0]["max_model_len"] > 100_000
        log = "".join(file.read_text() for file in mesh.log_dir.glob("*.log"))
    for warning in ("generation_config.json: eos_token_id", "config.json: eos_token_id", "temperature is taken as 2"):
        assert warning in log
    (odd / "generation_config.json").unlink()
    (odd / "sane.json").rename(odd / "config.json")
    theirs = AutoModelForCausalLM.from_pretrained(odd, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    expected = theirs.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0)
    assert answer.choices[0].text == AutoTokenizer.from_pretrained(odd).decode(expected[0, len(PROMPT) :])

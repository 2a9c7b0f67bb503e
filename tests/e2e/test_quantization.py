"""Weights in 8 and 4 bits, served: said to be so, and near the unquantized model."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest
import torch
from transformers import AutoTokenizer

from tests.checkpoints import make_checkpoint, make_tokenizer, settle
from tests.model_worker.kernel_fixtures import library
from tests.serving import ServeProcess, wait_for

FLAGS = ("--dtype", "bfloat16", "--max-model-len", "128", "--max-slots", "4", "--threads", "1", "--grpc-port", "-1")
SIZES: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 512}


class Model(NamedTuple):
    path: Path
    prompts: list[list[int]]
    tokens: list[str]
    """Per prompt, the text of the likeliest next token in float32."""
    leads: list[float]
    """How far its logit is ahead of the next one's."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("quantized") / "tiny"
    make_tokenizer(path)
    theirs = make_checkpoint(path, "llama", **SIZES)
    settle(theirs)
    theirs.bfloat16().save_pretrained(path)
    theirs.float()
    tokenizer = AutoTokenizer.from_pretrained(path)
    plain = torch.tensor([token for token in range(3, 512) if tokenizer.decode([token]).isascii()])
    generator = torch.Generator().manual_seed(3)
    prompts = plain[torch.randint(0, len(plain), (80, 12), generator=generator)]
    with torch.inference_mode():
        best = theirs(prompts).logits[:, -1].topk(2)
    whole = torch.isin(best.indices[:, 0], plain)  # half a character's text depends on its neighbours
    leads = (best.values[:, 0] - best.values[:, 1])[whole]
    return Model(path, prompts[whole].tolist(), tokenizer.batch_decode(best.indices[whole, :1]), leads.tolist())


@pytest.mark.parametrize(("quantization", "lead", "share"), [("w8a16", 0.4, 0.85), ("w4a16", 2.5, 0.4)])
def test_quantized_weights_serve_nearly_the_same(quantization: str, lead: float, share: float, model: Model) -> None:
    """The same next token wherever float32 is sure of it, and for many prompts where it is not.

    Random weights are the worst case for 4 bits: nothing in them is redundant.
    """
    library()
    flags = (*FLAGS, "--model", str(model.path), "--quantization", quantization)
    with ServeProcess(*flags) as mesh:
        with urllib.request.urlopen(f"{mesh.url}/v1/mesh", timeout=10) as answer:  # noqa: S310
            members = json.load(answer)["data"]
        (worker,) = [member for member in members if member["service"] == "model_worker"]
        assert worker["attributes"]["quantization"] == quantization
        wait_for(lambda: f"weights in {quantization}" in mesh.log("worker-r0-0"), 30, "the line about the weights")
        with openai.OpenAI(base_url=f"{mesh.url}/v1", api_key="none", timeout=60, max_retries=0) as client:
            answers = [
                client.completions.create(model=mesh.model, prompt=prompt, max_tokens=1, temperature=0)
                for prompt in model.prompts
            ]
    texts = [answer.choices[0].text for answer in answers]
    right = [text == expected for text, expected in zip(texts, model.tokens, strict=True)]
    assert all(same for same, ahead in zip(right, model.leads, strict=True) if ahead > lead)
    assert sum(right) > share * len(right)


def test_a_quantization_that_does_not_exist_is_refused_by_name(model: Model) -> None:
    flags = ("--model", str(model.path), "--quantization", "w3a16")
    command = [sys.executable, "-m", "radixmesh.services.model_worker", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--quantization" in done.stderr
    assert "'w8a16'" in done.stderr
    assert "Traceback" not in done.stderr

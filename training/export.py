"""Writes a run as a Hugging Face directory: ``python -m training.export RUN src/radixmesh/models/radixmesh-tiny``."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.checkpoint import WEIGHTS
from training.model import SHAPES, Shape
from training.tokenizer import END, PAD

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def export(run: Path, shape: Shape, directory: Path) -> None:
    """bfloat16 weights, configuration and tokenizer; a model card that is there stays. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in sorted(load_file(run / WEIGHTS).items())}
    write_weights(directory / "model.safetensors", weights)
    ends = [END, PAD]
    write_json(directory / "config.json", shape.hf_config(ends, PAD))
    write_json(directory / "generation_config.json", {"eos_token_id": ends, "pad_token_id": PAD})
    for name in TOKENIZER_FILES:
        shutil.copyfile(run / name, directory / name)


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """A safetensors file that all may read, as a package's files are."""
    save_file(weights, path, {"format": "pt"})
    path.chmod(0o644)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("run", type=Path, help="directory of a training run")
    parser.add_argument("directory", type=Path, help="to write to")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    flags = parser.parse_args()
    export(flags.run, SHAPES[flags.shape], flags.directory)


if __name__ == "__main__":
    main()

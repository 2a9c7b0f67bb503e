"""The mean of several checkpoints' weights: ``python -m training.average OUT RUN RUN ...``.

Checkpoints of one run that each ended with a decay of the learning rate lie in one basin of the loss, and their mean is
better than any of them (model soups, arXiv:2203.05482).
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.checkpoint import WEIGHTS
from training.export import TOKENIZER_FILES


def mean(runs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Float32 means, by name. Raises ValueError if the runs are not of one shape."""
    shapes = {tuple(sorted((name, tuple(tensor.shape)) for name, tensor in run.items())) for run in runs}
    if len(shapes) != 1:
        raise ValueError("these checkpoints are not of one shape")
    return {name: torch.stack([run[name].float() for run in runs]).mean(0) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.average", description=__doc__)
    parser.add_argument("out", type=Path, help="directory for the mean; what is there is overwritten")
    parser.add_argument("runs", type=Path, nargs="+", help="directories of checkpoints with the same tokenizer")
    flags = parser.parse_args()
    tokenizers = {tuple((run / name).read_bytes() for name in TOKENIZER_FILES) for run in flags.runs}
    if len(tokenizers) != 1:
        parser.error("these checkpoints have different tokenizers")
    flags.out.mkdir(parents=True, exist_ok=True)
    save_file(mean([load_file(run / WEIGHTS) for run in flags.runs]), flags.out / WEIGHTS)
    for name in TOKENIZER_FILES:
        shutil.copyfile(flags.runs[0] / name, flags.out / name)


if __name__ == "__main__":
    main()

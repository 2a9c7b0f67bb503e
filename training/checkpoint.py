"""What a stopped training goes on from: weights, and each process's optimizer state."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.optimizer import Optimizer

WEIGHTS = "weights.safetensors"


@dataclass
class Progress:
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


def save_checkpoint(directory: Path, rank: int, model: nn.Module, optimizer: Optimizer, progress: Progress) -> None:
    """Process `rank`'s part; process 0's has the weights too. A file is never seen half written."""
    if rank == 0:
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        draft = directory / f".{WEIGHTS}"
        save_file(weights, draft, {"format": "pt"})
        draft.replace(directory / WEIGHTS)
    draft = directory / f".optimizer-{rank}.pt"
    torch.save({"state": optimizer.state, "steps": optimizer.steps, "progress": asdict(progress)}, draft)
    draft.replace(directory / f"optimizer-{rank}.pt")


def load_weights(directory: Path, model: nn.Module) -> None:
    """Into `model`, in place. Raises OSError."""
    with torch.no_grad():
        stored = load_file(directory / WEIGHTS)
        for name, parameter in model.named_parameters():
            parameter.copy_(stored[name])


def load_checkpoint(directory: Path, rank: int, optimizer: Optimizer) -> Progress:
    """Process `rank`'s optimizer state. Raises OSError."""
    stored = torch.load(directory / f"optimizer-{rank}.pt", weights_only=True)
    optimizer.state, optimizer.steps = stored["state"], stored["steps"]
    return Progress(**stored["progress"])

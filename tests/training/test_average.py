"""The mean of checkpoints."""

from __future__ import annotations

import pytest
import torch

from training.average import mean


def test_the_mean_is_by_name() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    second = {"b": torch.tensor(5.0), "a": torch.tensor([3.0, 0.0])}
    assert {name: tensor.tolist() for name, tensor in mean([first, second]).items()} == {"a": [2.0, 1.0], "b": 4.0}


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="not of one shape"):
        mean([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}])
    with pytest.raises(ValueError, match="not of one shape"):
        mean([{"a": torch.zeros(2)}, {"b": torch.zeros(2)}])

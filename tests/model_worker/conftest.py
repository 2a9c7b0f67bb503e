"""Shared by the tests of the model worker."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # for paged_driver


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matmuls are slower on several threads, and the machine may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)

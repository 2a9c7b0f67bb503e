"""Shared by the tests that need an accelerator."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "model_worker"))  # for group_rank and what it imports

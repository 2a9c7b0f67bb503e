"""Keeps torch out of a process that reads tokenizers."""

import os
import sys


def without_torch() -> None:
    """Makes `transformers` believe that torch is not installed: it would import it, at some seconds and 250 MB.

    For a process's entry point only, before anything has imported either: it holds for the whole process.
    """
    if "transformers" not in sys.modules and "torch" not in sys.modules:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way of saying "not there"
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

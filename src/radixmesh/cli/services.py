"""The services by their names."""

import argparse

SERVICES = ("gateway", "tokenizer", "scheduler", "model_worker", "detokenizer")


def service_name(text: str) -> str:
    """The service that `text` names; dashes are as good as underscores. Raises argparse's ArgumentTypeError."""
    name = text.replace("-", "_")
    if name not in SERVICES:
        raise argparse.ArgumentTypeError(f"no service {text!r}; there are {', '.join(SERVICES)}")
    return name

"""Runs one tokenizer."""

from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.lean import without_torch
from radixmesh.services.tokenizer.service import Tokenizer
from radixmesh.shared.process import main

if __name__ == "__main__":
    without_torch()
    raise SystemExit(main(Tokenizer, TokenizerSettings))

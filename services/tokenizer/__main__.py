"""Runs one tokenizer."""

from radixmesh.services.tokenizer.config import TokenizerSettings
from radixmesh.services.tokenizer.service import Tokenizer
from radixmesh.shared.actor.main import main
from radixmesh.shared.model_files.tokenizer.lean import without_torch

if __name__ == "__main__":
    without_torch()
    raise SystemExit(main(Tokenizer, TokenizerSettings))

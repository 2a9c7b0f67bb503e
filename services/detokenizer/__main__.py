"""Runs one detokenizer."""

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.service import Detokenizer
from radixmesh.shared.actor.main import main
from radixmesh.shared.model_files.tokenizer.lean import without_torch

if __name__ == "__main__":
    without_torch()
    raise SystemExit(main(Detokenizer, DetokenizerSettings))

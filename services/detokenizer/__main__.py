"""Runs one detokenizer."""

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.service import Detokenizer
from radixmesh.shared.process import main
from radixmesh.shared.tokenizer_files.lean import without_torch

if __name__ == "__main__":
    without_torch()
    raise SystemExit(main(Detokenizer, DetokenizerSettings))

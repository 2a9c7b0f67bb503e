"""Runs one detokenizer."""

from radixmesh.services.detokenizer.config import DetokenizerSettings
from radixmesh.services.detokenizer.service import Detokenizer
from radixmesh.shared.process import main

if __name__ == "__main__":
    raise SystemExit(main(Detokenizer, DetokenizerSettings))

"""Training of the bundled model: corpus, tokenizer, trainer, evaluation, export (``python -m training.<module>``)."""

"""Which replica and which detokenizer serve a request."""

"""Rules for the words by which people name a model and show that they may use it.

Each function gives the word as it counts, or raises ValueError with what is wrong with it, without the word.
"""

MODEL_NAME_CHARS = 256
"""Of a model's name; longer ones no request can ask for."""

API_KEY_CHARS = 4096
"""Of an API key: with its header's name it must fit into what HTTP servers take for a header."""


def model_name(text: str) -> str:
    """A name that a request's body and URL can carry."""
    if not text:
        raise ValueError("must not be empty")
    if len(text) > MODEL_NAME_CHARS:
        raise ValueError(f"has {len(text)} characters, more than the {MODEL_NAME_CHARS} that a request can ask for")
    if not text.isprintable():  # lone surrogates, of bytes that are no UTF-8, are not printable either
        raise ValueError("has characters that cannot be printed")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    if {".", ".."} & set(text.split("/")):
        raise ValueError("has a part '.' or '..', which clients take out of a URL")
    return text


def api_key(text: str) -> str:
    """A key that a header can carry, without the white space around it: secrets from files end with a newline."""
    key = text.strip()
    if not key:
        raise ValueError("is nothing but white space")
    if len(key) > API_KEY_CHARS:
        raise ValueError(f"has {len(key)} characters, more than {API_KEY_CHARS}")
    if not (key.isascii() and key.isprintable()):
        raise ValueError("has characters that no header can carry (only printable ASCII can)")
    return key

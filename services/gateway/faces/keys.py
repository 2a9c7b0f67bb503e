"""API keys, as clients of all faces send them."""

import hmac
from collections.abc import Mapping


def key_matches(headers: Mapping[str, str], key: bytes) -> bool:
    """Whether headers hold `key`, as bearer or as `x-api-key`, in time that does not tell how much of it is right.

    Args:
        headers: with names that may be given in lower case.
    """
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    tries = [bearer if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
    return any(hmac.compare_digest(given.strip().encode("utf-8", "replace"), key) for given in tries)

"""Names for cached prefixes, so that a router can compare a prompt with what replicas hold."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def cache_namespace(cache_salt: str, lora: str) -> str:
    """The namespace in which a request's prefixes may be shared: those of the same salt and the same LoRA."""
    return f"{len(cache_salt)}:{cache_salt}{len(lora)}:{lora}"  # lengths: what is in a salt cannot pass for a LoRA


def block_hashes(
    tokens: NDArray[np.int32], block_size: int, namespace: str = "", *, parent: int | None = None
) -> NDArray[np.uint64]:
    """Chained hashes of the full blocks of `tokens`.

    Element i names the prefix of (i + 1) * block_size tokens in `namespace` (cache salt and LoRA id): two prompts
    share element i if and only if they share that whole prefix, up to 64-bit collisions, which cost a router one
    bad guess and nothing else.

    Args:
        tokens: int32 [T].
        block_size: tokens per block.
        parent: the block that `tokens` follow, by its hash; `namespace` is then not used. None: they start a prompt.

    Returns:
        uint64 [T // block_size].
    """
    count = len(tokens) // block_size
    data = np.ascontiguousarray(tokens[: count * block_size], dtype="<i4").tobytes()
    step = block_size * 4
    hashes = np.empty(count, np.uint64)
    before = parent.to_bytes(8, "little") if parent is not None else _root(namespace)
    for i in range(count):
        before = hashlib.blake2b(data[i * step : (i + 1) * step], digest_size=8, key=before).digest()
        hashes[i] = int.from_bytes(before, "little")
    return hashes


def _root(namespace: str) -> bytes:
    return hashlib.blake2b(namespace.encode(), digest_size=8).digest()

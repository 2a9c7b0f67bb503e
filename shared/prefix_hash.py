"""Names for cached prefixes, so that a router can compare a prompt with what replicas hold."""

import hashlib

import numpy as np
from numpy.typing import NDArray


def block_hashes(tokens: NDArray[np.int32], block_size: int, namespace: str = "") -> NDArray[np.uint64]:
    """Chained hashes of the full blocks of `tokens`.

    Element i names the prefix of (i + 1) * block_size tokens in `namespace` (cache salt and LoRA id): two prompts
    share element i if and only if they share that whole prefix, up to 64-bit collisions, which cost a router one
    bad guess and nothing else.

    Args:
        tokens: int32 [T].
        block_size: tokens per block.

    Returns:
        uint64 [T // block_size].
    """
    count = len(tokens) // block_size
    data = memoryview(np.ascontiguousarray(tokens[: count * block_size], dtype="<i4")).cast("B")
    step = block_size * 4
    hashes = np.empty(count, np.uint64)
    parent = hashlib.blake2b(namespace.encode(), digest_size=8).digest()
    for i in range(count):
        parent = hashlib.blake2b(data[i * step : (i + 1) * step], digest_size=8, key=parent).digest()
        hashes[i] = int.from_bytes(parent, "little")
    return hashes

"""Random numbers that are a pure function of their key: Philox4x32-10.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC11, doi:10.1145/2063384.2063405). A row's
number depends on (seed, choice, position) alone: not on the batch it is sampled in, nor on whether the
sequence was moved, retracted or resumed in between.
"""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]  # 32-bit words, in 64 bits so that products keep their high half

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, ...]:
    """Ten rounds over arrays of one shape; four words of output for each counter and key."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> _WORD) ^ c1 ^ k0,
            second & _LOW,
            (first >> _WORD) ^ c3 ^ k1,
            first & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def uniforms(
    seeds: NDArray[np.uint64], choices: NDArray[np.integer], positions: NDArray[np.integer]
) -> NDArray[np.float64]:
    """One number in [0, 1) with 53 random bits per row; all arguments [R]."""
    position = positions.astype(np.uint64)
    zero = np.zeros_like(seeds)
    counter = (position & _LOW, position >> _WORD, choices.astype(np.uint64) & _LOW, zero)
    high, low, *_ = philox(counter, (seeds & _LOW, seeds >> _WORD))
    bits = (high << np.uint64(21)) | (low >> np.uint64(11))
    return bits.astype(np.float64) * 2.0**-53

"""The random numbers: the published vectors, and what the sampler relies on."""

import numpy as np

from radixmesh.services.model_worker.sampling.philox import philox, uniforms


def words(*hexes: str) -> tuple[np.ndarray, ...]:
    return tuple(np.array([int(text, 16)], np.uint64) for text in hexes)


def test_known_answers() -> None:
    """The known-answer vectors of the authors' library, Random123."""
    cases = [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]
    for counter, key, expected in cases:
        out = philox(words(*counter.split()), words(*key.split()))  # type: ignore[arg-type]  # as many words as it takes
        assert [f"{int(word[0]):08x}" for word in out] == expected.split()


def test_rows_depend_on_their_own_key_only() -> None:
    seeds = np.array([7, 2**64 - 1, 7, 7], np.uint64)
    choices, positions = np.array([0, 3, 1, 0]), np.array([5, 2**31, 5, 6])
    together = uniforms(seeds, choices, positions)
    alone = [uniforms(seeds[i : i + 1], choices[i : i + 1], positions[i : i + 1])[0] for i in range(4)]
    assert together.tolist() == alone
    assert len(set(alone)) == 4


def test_uniforms_are_uniform_over_positions_and_over_seeds() -> None:
    count = 20_000
    zeros, steps = np.zeros(count, np.int64), np.arange(count)
    for numbers in (
        uniforms(np.full(count, 42, np.uint64), zeros, steps),
        uniforms(steps.astype(np.uint64), zeros, zeros),
        uniforms(np.full(count, 42, np.uint64), steps, zeros),
    ):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        observed = np.histogram(numbers, bins=100, range=(0, 1))[0]
        chi_square = ((observed - count / 100) ** 2 / (count / 100)).sum()
        assert chi_square < 149  # the 0.1 % point of 99 degrees of freedom
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03

"""The scheduler's logic against a simulated worker."""

import numpy as np
from scheduler.harness import Harness, admit_message


def prompt(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 997, length).astype(np.int32)


def test_one_request_gives_what_it_gives_alone() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(1, 10)))
    harness.run()
    harness.verify()
    assert harness.outcomes["a", 0].tokens


def test_many() -> None:
    harness = Harness()
    for i in range(50):
        harness.admit(admit_message(f"r{i}", prompt(i % 7, 5 + i), seed=i, n=1 + i % 3))
    harness.run()
    harness.verify()
    print(harness.core.state.counters)

"""Ten thousand requests through the scheduler, without a model."""

import numpy as np

from radixmesh.services.scheduler.config import SchedulerSettings
from tests.scheduler.harness import Harness, admit_message, sizes
from tests.scheduler.simulator import VOCAB


def test_ten_thousand_requests() -> None:
    random = np.random.default_rng(1)
    harness = Harness(
        SchedulerSettings(max_queued_requests=20_000, policy="lpm"),
        sizes(page_size=16, num_pages=600, max_slots=64, max_model_len=512),
        check=False,
    )
    systems = random.integers(1, VOCAB, (20, 64)).astype(np.int32)
    arrived = 0
    while arrived < 10_000:
        for _ in range(min(int(random.integers(1, 40)), 10_000 - arrived)):
            own = random.integers(1, VOCAB, int(random.integers(4, 40))).astype(np.int32)
            prompt = np.concatenate([systems[arrived % 20], own])
            harness.admit(admit_message(f"r{arrived}", prompt, max_tokens=int(random.integers(1, 16)), seed=arrived))
            arrived += 1
        if random.random() < 0.2:
            harness.cancel(f"r{int(random.integers(arrived))}")
        for _ in range(int(random.integers(1, 6))):
            harness.pump()
            harness.work()
            harness.deliver()
        harness.now += 0.1
        harness.core.tick(harness.now)
    harness.run()
    harness.verify()
    state = harness.core.state
    assert state.check() == []
    assert not harness.worker.slots
    assert state.counters.finished == 10_000
    assert state.counters.cached_tokens > 0.4 * state.counters.prompt_tokens

"""Prefixes that requests share: exact counts, waiting for one that computes them, flushing."""

import numpy as np

from radixmesh.shared.messages import Finish
from tests.scheduler.harness import Harness, admit_message, options, prompt, running, sizes


def test_cached_tokens_are_exact() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18), max_tokens=8, ignore_eos=True))
    harness.run()
    harness.admit(admit_message("b", prompt(0, 18), max_tokens=1))
    harness.admit(admit_message("c", prompt(0, 16), max_tokens=1))
    told = np.concatenate([prompt(0, 18), harness.outcomes["a", 0].tokens, [7]]).astype(np.int32)
    harness.admit(admit_message("d", told, max_tokens=1))
    harness.admit(admit_message("e", prompt(0, 18), max_tokens=1, salt="other"))
    harness.run()
    harness.verify()
    cached = {name: harness.outcomes[name, 0].cached[0] for name in "abcde"}
    # 18 tokens fill 4 pages of 4; of 16 tokens the last must be computed; 18 + 8 - 1 tokens of a have KV: 6 pages
    assert cached == {"a": 0, "b": 16, "c": 12, "d": 24, "e": 0}


def test_choices_of_one_request_share_its_prompt() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 30), n=4))
    harness.run()
    harness.verify()
    assert [harness.outcomes["a", choice].cached[0] for choice in range(4)] == [0, 28, 28, 28]


def test_waiting_prompts_let_one_compute_their_common_prefix() -> None:
    harness = Harness(options(prefill_chunk=16, max_prefill_tokens=16), sizes(num_pages=256))
    shared = prompt(0, 64)
    for i in range(6):
        harness.admit(admit_message(f"r{i}", np.concatenate([shared, prompt(i + 1, 5)])))
    harness.run()
    harness.verify()
    assert harness.core.replica.counters.cached_tokens == 5 * 64


def test_one_that_goes_away_in_the_middle_holds_nobody_up() -> None:
    harness = Harness(options(prefill_chunk=8, max_prefill_tokens=8), sizes(num_pages=256))
    shared = prompt(0, 64)
    harness.admit(admit_message("first", shared))
    harness.admit(admit_message("second", shared))
    harness.pump()
    assert running(harness) == {"first"}
    harness.cancel("first")
    harness.run()
    harness.verify()
    assert harness.outcomes["second", 0].finish is not Finish.RUNNING


def test_without_the_cache_nothing_is_kept() -> None:
    harness = Harness(options(prefix_cache=False))
    for name in "ab":
        harness.admit(admit_message(name, prompt(0, 30), n=2))
        harness.run()
    harness.verify()
    assert harness.core.replica.counters.cached_tokens == 0
    assert harness.core.replica.kv.free == 64


def test_flush_frees_what_nobody_uses() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 18)))
    harness.run()
    harness.admit(admit_message("b", prompt(1, 18), max_tokens=100, ignore_eos=True))
    for _ in range(4):
        harness.pump()
        harness.work()
        harness.deliver()
    cached = harness.core.replica.kv.tree.evictable()
    freed, used = harness.core.flush()
    assert freed == cached > 0
    assert used > 0
    harness.run()
    harness.verify()


def test_prompts_whose_kv_depends_on_their_length_share_only_with_their_like() -> None:
    claimed = sizes().model_copy(update={"length_keyed_above": 20})
    harness = Harness(claimed=claimed)
    for name, length in (("a", 16), ("b", 20), ("c", 24), ("d", 28), ("e", 28)):
        harness.admit(admit_message(name, prompt(0, length), max_tokens=1))
        harness.run()
    assert [harness.outcomes[name, 0].cached[0] for name in "abcde"] == [0, 16, 0, 0, 24]


def test_what_a_retracted_prompt_finds_again_is_its_own_and_not_told_as_cached() -> None:
    harness = Harness(options(prefill_chunk=8, pipeline_depth=1), sizes(num_pages=18))
    harness.admit(admit_message("a", prompt(0, 8), max_tokens=40, ignore_eos=True))
    harness.admit(admit_message("b", prompt(1, 60), max_tokens=5, ignore_eos=True))
    harness.run()
    assert harness.core.replica.counters.retracted == 1
    assert set(harness.outcomes["b", 0].cached) == {0}
    harness.verify()


def test_a_lock_that_nobody_holds_is_found_and_repaired() -> None:
    harness = Harness()
    harness.admit(admit_message("a", prompt(0, 20)))
    harness.run()
    kv = harness.core.replica.kv
    kv.tree.lock(kv.tree.match(prompt(0, 20)[:16], "").node)
    problems = harness.core.check()
    assert problems
    assert all("1 locks for 0 holders" in problem for problem in problems)
    harness.core.repair()
    assert harness.core.check() == []

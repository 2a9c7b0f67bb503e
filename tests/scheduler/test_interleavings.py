"""Whatever the interleaving, each request gives what it gives alone, and the books are right after every step."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radixmesh.services.scheduler.config import SchedulerSettings
from radixmesh.shared.errors import ErrorCode, RequestError
from radixmesh.shared.messages import Claimed, KvGroup, KvKind
from tests.scheduler.harness import Harness, admit_message, sizes
from tests.scheduler.simulator import VOCAB

_BASES = np.random.default_rng(5).integers(1, VOCAB, (3, 400)).astype(np.int32)

_settings = st.builds(
    SchedulerSettings,
    policy=st.sampled_from(["fcfs", "lpm", "dfs-weight", "priority"]),
    preemption_threshold=st.integers(1, 3),
    eviction=st.sampled_from(["lru", "lfu"]),
    pipeline_depth=st.integers(1, 3),
    max_multi_step=st.integers(1, 5),
    multi_step_ms=st.sampled_from([0.0, 12.0]),
    prefill_chunk=st.integers(1, 40),
    max_prefill_tokens=st.integers(1, 80),
    prefix_cache=st.booleans(),
    decode_headroom=st.sampled_from([0, 8]),
    warm_min_tokens=st.sampled_from([1, 8, 64]),
    max_running_requests=st.integers(0, 6),
    starvation_seconds=st.sampled_from([0.05, 10.0]),
)
_sizes = st.builds(
    sizes,
    page_size=st.sampled_from([1, 4, 16]),
    num_pages=st.integers(4, 40),
    max_slots=st.integers(1, 6),
    max_model_len=st.integers(20, 200),
    max_drafts=st.sampled_from([0, 0, 1, 4]),
    ranks=st.integers(1, 2),
    loras=st.integers(1, 2),
)


@st.composite
def _mixed_sizes(draw: st.DrawFn) -> Claimed:
    """One to three groups, with windows among them."""
    page_size = draw(st.sampled_from([1, 4, 16]))
    kinds = st.lists(st.sampled_from(["full", "latent", "window", "window"]), min_size=1, max_size=3)
    groups = [
        KvGroup(
            kind=KvKind(kind),
            page_size=page_size,
            num_pages=draw(st.integers(4, 40)),
            window=draw(st.integers(1, 60)) if kind == "window" else 0,
        )
        for kind in draw(kinds)
    ]
    return sizes(
        groups=groups,
        max_slots=draw(st.integers(1, 6)),
        max_model_len=draw(st.integers(20, 200)),
        max_drafts=draw(st.sampled_from([0, 0, 1, 4])),
        ranks=draw(st.integers(1, 2)),
        loras=draw(st.integers(1, 2)),
    )


_admits = st.fixed_dictionaries(
    {
        "base": st.integers(0, 2),
        "shared": st.integers(0, 60),
        "own": st.integers(0, 30),
        "n": st.integers(1, 3),
        "max_tokens": st.one_of(st.none(), st.integers(1, 40)),
        "priority": st.integers(0, 2),
        "salt": st.sampled_from(["", "", "s"]),
        "ignore_eos": st.booleans(),
        "lora": st.sampled_from(["", "", "a", "b", "c"]),
    }
)
_actions = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), _admits),
        st.tuples(st.just("admit"), _admits),
        st.tuples(st.just("go"), st.integers(1, 12)),
        st.tuples(st.just("pump"), st.none()),
        st.tuples(st.just("work"), st.none()),
        st.tuples(st.just("deliver"), st.none()),
        st.tuples(st.just("cancel"), st.integers(0, 50)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("flush"), st.none()),
        st.tuples(st.just("tick"), st.integers(1, 100)),
        st.tuples(st.just("prepared"), st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans())),
        st.tuples(st.just("prepared"), st.tuples(st.integers(0, 3), st.integers(0, 1), st.just(True))),
        st.tuples(st.just("die"), st.none()),
    ),
    max_size=30,
)


def _admit(harness: Harness, wish: dict[str, Any]) -> None:
    number = len(harness.admits)
    own = np.random.default_rng(number).integers(1, VOCAB, wish["own"]).astype(np.int32)
    prompt = np.concatenate([_BASES[wish["base"], : wish["shared"]], own])
    message = admit_message(
        f"r{number}",
        prompt,
        n=wish["n"],
        max_tokens=wish["max_tokens"],
        seed=number,
        priority=wish["priority"],
        salt=wish["salt"],
        ignore_eos=wish["ignore_eos"],
        lora=wish.get("lora", ""),
    )
    try:
        harness.admit(message)
    except RequestError:
        assert not 0 < prompt.size < harness.core.replica.max_len


def _act(harness: Harness, action: tuple[str, Any]) -> None:
    match action:
        case "admit", wish:
            _admit(harness, wish)
        case "go", count:
            for _ in range(count):
                harness.pump()
                harness.work()
                harness.deliver()
                harness.now += 0.01
        case "pump", _:
            harness.pump()
        case "work", _:
            harness.work()
        case "deliver", _:
            harness.deliver()
        case "cancel", index if harness.admits:
            name = f"r{index % len(harness.admits)}"
            harness.cancel(name, index % 4 - 1, harness.admits[name].attempt)
        case "fail", slot if slot in harness.worker.slots and not harness.worker.slots[slot].ended:
            harness.worker.fail_slots.add(slot)
        case "prepared", (which, rank, well):
            harness.prepare(which, rank % harness.sizes.ranks, None if well else ErrorCode.INVALID_REQUEST)
        case "die", _:
            harness.die()
        case "flush", _:
            harness.core.flush()
            harness.check()
        case "tick", hundredths:
            harness.now += hundredths / 100
            harness.core.tick(harness.now)


@pytest.mark.slow
@pytest.mark.parametrize("partial", [False, True])
@settings(max_examples=200)
@given(options=_settings, claimed=_sizes, actions=_actions, seed=st.integers(0, 1000))
def test_outputs_are_those_of_a_lone_run(
    partial: bool, options: SchedulerSettings, claimed: Claimed, actions: list[Any], seed: int
) -> None:
    _run(partial, options, claimed, actions, seed)


@pytest.mark.slow
@pytest.mark.parametrize("partial", [False, True])
@settings(max_examples=300)
@given(options=_settings, claimed=_mixed_sizes(), actions=_actions, seed=st.integers(0, 1000))
def test_so_they_are_with_layers_of_several_kinds(
    partial: bool, options: SchedulerSettings, claimed: Claimed, actions: list[Any], seed: int
) -> None:
    _run(partial, options, claimed, actions, seed)


_long = st.fixed_dictionaries(
    {
        "base": st.integers(0, 1),
        "shared": st.integers(40, 150),
        "own": st.integers(0, 60),
        "n": st.integers(1, 2),
        "max_tokens": st.integers(1, 60),
        "priority": st.integers(0, 2),
        "salt": st.just(""),
        "ignore_eos": st.just(True),
    }
)


@pytest.mark.slow
@settings(max_examples=200)
@given(
    options=_settings,
    window=st.integers(1, 40),
    spare=st.integers(0, 8),
    full=st.one_of(st.none(), st.integers(70, 120)),
    max_drafts=st.sampled_from([0, 0, 3]),
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("admit"), _long),
            st.tuples(st.just("admit"), _long),
            st.tuples(st.just("go"), st.integers(1, 12)),
            st.tuples(st.just("cancel"), st.integers(0, 50)),
        ),
        min_size=3,
        max_size=16,
    ),
)
def test_so_they_are_where_windows_have_little_more_than_they_show(
    options: SchedulerSettings, window: int, spare: int, full: int | None, max_drafts: int, actions: list[Any]
) -> None:
    """Prompts many times as long, which compete for the few pages in which their windows move on."""
    least = max(1, -(-(window - 1) // 4)) + 2
    groups = [KvGroup(kind=KvKind.WINDOW, page_size=4, num_pages=least + spare, window=window)]
    if full is not None:
        groups.append(KvGroup(page_size=4, num_pages=full))
    claimed = sizes(groups=groups, max_slots=5, max_model_len=400, max_drafts=max_drafts)
    _run(False, options, claimed, actions, 0)


def _run(partial: bool, options: SchedulerSettings, claimed: Claimed, actions: list[Any], seed: int) -> None:
    harness = Harness(options, claimed, partial=np.random.default_rng(seed) if partial else None)
    for action in actions:
        _act(harness, action)
    harness.run(limit=20_000)
    harness.verify()
    replica = harness.core.replica
    assert not harness.worker.slots, "a slot was not released"
    assert replica.kv.free + replica.kv.cached == replica.kv.total
    assert replica.kv.tree.locked == 0
    replica.kv.flush()
    assert replica.kv.free == replica.kv.total
    assert not list(replica.kv.tree.nodes())
    assert not replica.pending_prefixes._counts

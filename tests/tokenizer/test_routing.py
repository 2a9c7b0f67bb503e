"""The router alone: prefixes, loads, events; and a simulated mesh."""

import random
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from radixmesh.services.tokenizer.routing.prefix_index import ASK_AGAIN, MAX_EXPECTED, PrefixIndex
from radixmesh.services.tokenizer.routing.router import Route, Router, choose_detokenizer
from radixmesh.shared.messages import KvEvents, Presence, State
from radixmesh.shared.prefix_hash import block_hashes, cache_namespace

BLOCK = 4
SPACE = cache_namespace("", "")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def beat(name: str, epoch: int = 1, state: State = State.READY, **attributes: Any) -> Presence:
    return Presence(service="scheduler", instance=name, epoch=epoch, state=state, model="m", attributes=attributes)


def events(name: str, seq: int, stored: Iterable[int] = (), removed: Iterable[int] = (), **fields: Any) -> KvEvents:
    return KvEvents.model_validate(
        {
            "replica_id": name,
            "epoch": 1,
            "seq": seq,
            "block_size": BLOCK,
            "stored": list(stored),
            "removed": list(removed),
            **fields,
        }
    )


def prompt(*tokens: int) -> NDArray[np.int32]:
    return np.array(tokens, np.int32)


def hashes(ids: NDArray[np.int32], namespace: str = SPACE) -> list[int]:
    found: list[int] = block_hashes(ids, BLOCK, namespace).tolist()
    return found


def two(clock: Clock | None = None, **options: Any) -> Router:
    """Replicas a and b, both ready and in step with an empty cache."""
    router = Router(clock=clock or Clock(), **options)
    for name in "ab":
        assert router.seen(beat(name))
        router.apply(events(name, 0, cleared=True))
    return router


def chosen(router: Router, ids: NDArray[np.int32], namespace: str = SPACE, sequences: int = 1) -> Route:
    route = router.choose(ids, namespace, sequences)
    assert route is not None
    return route


LONG = prompt(*range(40))


def test_nobody_ready() -> None:
    router = Router()
    assert router.choose(LONG, SPACE) is None
    router.seen(beat("a", state=State.STARTING))
    assert router.choose(LONG, SPACE) is None


def test_the_only_one() -> None:
    router = Router()
    router.seen(beat("a", epoch=7))
    router.seen(beat("b", state=State.DRAINING))
    assert router.choose(LONG, SPACE) == Route("a", 7, "only", 0)


def test_least_loaded_counts_what_was_sent_since_the_heartbeat() -> None:
    clock = Clock()
    router = two(clock)
    router.seen(beat("a", running=1, waiting=1))
    routes = [chosen(router, prompt(*range(n * 100, n * 100 + 8))) for n in range(6)]
    assert Counter(route.replica_id for route in routes) == {"b": 4, "a": 2}
    assert {route.reason for route in routes} == {"least_loaded"}
    clock.now += 1.0
    router.seen(beat("b", running=0, waiting=0))
    assert chosen(router, prompt(1, 2)).replica_id == "b"


def test_what_was_sent_just_before_a_heartbeat_still_counts() -> None:
    clock = Clock()
    router = two(clock)
    first = chosen(router, prompt(1, 2, 3)).replica_id
    clock.now += 0.001
    router.seen(beat(first, running=0))
    assert chosen(router, prompt(4, 5, 6)).replica_id != first


def test_choices_weigh() -> None:
    router = two()
    first = chosen(router, prompt(1), sequences=5).replica_id
    assert {chosen(router, prompt(n)).replica_id for n in range(5)} == {"a", "b"} - {first}


def test_the_longest_cached_prefix_wins() -> None:
    router = two()
    router.apply(events("a", 1, stored=hashes(LONG)[:3]))
    router.apply(events("b", 1, stored=hashes(LONG)[:7]))
    assert chosen(router, LONG) == Route("b", 1, "prefix", 28)
    router = two()
    router.apply(events("a", 1, stored=hashes(LONG)[:5]))
    router.apply(events("b", 1, stored=hashes(LONG)[:7]))
    router.apply(events("b", 2, removed=hashes(LONG)[1:7]))
    assert chosen(router, LONG) == Route("a", 1, "prefix", 20)


def test_namespaces_do_not_share() -> None:
    router = two()
    router.apply(events("b", 1, stored=hashes(LONG)))
    router.seen(beat("b", running=5))
    assert chosen(router, LONG, cache_namespace("salt", "")).replica_id == "a"
    assert chosen(router, LONG, cache_namespace("", "lora")).replica_id == "a"
    assert chosen(router, LONG).replica_id == "b"
    assert cache_namespace("a", "b") != cache_namespace("ab", "")


def test_a_small_prefix_is_not_worth_a_longer_queue() -> None:
    router = two(prefix_share=0.25)
    router.apply(events("a", 1, stored=hashes(LONG)[:2]))
    router.seen(beat("a", running=1))
    route = chosen(router, LONG)
    assert (route.replica_id, route.reason) == ("b", "least_loaded")


@pytest.mark.parametrize(("load", "other", "replica"), [(8, 0, "a"), (9, 0, "b"), (29, 20, "a"), (31, 20, "b")])
def test_an_overloaded_replica_loses_its_prefix(load: int, other: int, replica: str) -> None:
    router = two(balance_absolute=8, balance_relative=1.5)
    router.apply(events("a", 1, stored=hashes(LONG)))
    router.seen(beat("a", running=4, waiting=load - 4))
    router.seen(beat("b", running=other))
    assert chosen(router, LONG).replica_id == replica


def test_a_full_queue_is_avoided_while_another_is_not() -> None:
    router = two(balance_absolute=1000)
    router.apply(events("a", 1, stored=hashes(LONG)))
    router.seen(beat("a", waiting=4, max_queued=4))
    assert chosen(router, LONG).replica_id == "b"
    router.seen(beat("b", waiting=4, max_queued=4))
    assert chosen(router, LONG) is not None


def test_a_burst_with_a_new_prefix_stays_together_until_overload() -> None:
    clock = Clock()
    router = two(clock, balance_absolute=8, expect_seconds=5.0)
    burst = [chosen(router, prompt(*range(40), 1000 + n)) for n in range(6)]
    assert len({route.replica_id for route in burst}) == 1
    assert [route.reason for route in burst] == ["least_loaded"] + ["prefix"] * 5
    clock.now += 6.0
    assert chosen(router, prompt(*range(40), 2000)).reason == "least_loaded"
    more = Counter(chosen(router, prompt(*range(40), 3000 + n)).replica_id for n in range(40))
    assert max(more.values()) - min(more.values()) <= 10


def test_gaps_and_epochs() -> None:
    clock = Clock()
    router = two(clock)
    router.apply(events("a", 1, stored=hashes(LONG)))
    clock.now += ASK_AGAIN
    assert not router.apply(events("a", 1, removed=hashes(LONG)))  # seen before
    assert chosen(router, LONG).matched_tokens == 40
    assert router.apply(events("a", 3, stored=[1]))
    assert not router.apply(events("a", 4, stored=[2]))  # asked just now
    clock.now += ASK_AGAIN + 10
    assert router.seen(beat("a"))
    assert chosen(router, LONG).matched_tokens == 0
    clock.now += 10
    assert not router.apply(events("a", 9, stored=hashes(LONG), cleared=True))
    assert chosen(router, LONG) == Route("a", 1, "prefix", 40)
    clock.now += 10
    assert router.seen(beat("a", epoch=2))
    assert not router.apply(events("a", 10, stored=hashes(LONG)))  # the former epoch's
    assert not router.seen(beat("a", epoch=1))
    assert chosen(router, LONG).matched_tokens == 0
    router.gone("a", 2)
    assert chosen(router, LONG) == Route("b", 1, "only", 0)
    router.gone("b", 0)
    assert chosen(router, LONG).replica_id == "b"
    assert not router.apply(events("nobody", 5))


def test_a_fresh_replica_is_in_step_from_its_first_event() -> None:
    index = PrefixIndex(1)
    index.apply(events("a", 0, stored=[1, 2]))
    assert index.in_step
    assert len(index) == 2
    late = PrefixIndex(1)
    late.apply(events("a", 5, stored=[1, 2]))
    assert not late.in_step
    late.apply(events("a", 6, stored=[1], cleared=True, block_size=8))
    assert late.in_step
    late.apply(events("a", 7, stored=[1], block_size=0))
    assert late.block_size == 8


def test_expectations_are_bounded() -> None:
    index = PrefixIndex(1)
    index.apply(events("a", 0))
    index.expect(list(range(MAX_EXPECTED + 10)), 10.0)
    assert index.match([5], 0.0) == 0
    assert index.match([10, 11], 0.0) == 2 * BLOCK
    assert index.match([10, 11], 10.0) == 0


def member(name: str) -> Presence:
    return Presence(service="detokenizer", instance=name, epoch=1, state=State.READY, model="m")


def test_detokenizers_share_and_few_requests_move() -> None:
    three = [member(name) for name in ("d1", "d2", "d3")]
    requests = [f"{n:032x}" for n in range(900)]
    before = {request: choose_detokenizer(request, three) for request in requests}
    counts = Counter(found.instance for found in before.values() if found)
    assert min(counts.values()) > 220
    for request in requests:
        after = choose_detokenizer(request, three[:2])
        found = before[request]
        assert found is not None
        assert found.instance == "d3" or after == found
    assert choose_detokenizer("x", list(reversed(three))) == choose_detokenizer("x", three)
    assert choose_detokenizer("x", []) is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6), st.booleans(), st.integers(0, 5)), max_size=30))
def test_any_order_of_events_leaves_the_index_true_or_empty(steps: list[tuple[str, int, bool, int]]) -> None:
    """An index in step holds exactly what its replica told up to there."""
    index, told, log = PrefixIndex(1), set[int](), []
    for seq, (_, block, remove, _) in enumerate(steps):
        told = told - {block} if remove else told | {block}
        stored, removed = ([], [block]) if remove else ([block], [])
        log.append((events("a", seq, stored, removed), events("a", seq, told, cleared=True), set(told)))
    for (name, _, _, fate), (event, snapshot, _) in zip(steps, log, strict=True):
        if fate == 0:
            continue  # lost
        index.apply(snapshot if name == "b" and fate == 1 else event)
        if fate == 2:
            index.apply(event)  # twice
    known = {block for block in range(7) if index.match([block], 0.0)}
    if not index.in_step:
        assert known == set()
    elif index.block_size:
        truths = [truth for _, _, truth in log]
        assert known in truths


class SimulatedReplica:
    """A prefix cache of `capacity` blocks (least recently used go first), and `slots` requests at once."""

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.blocks: OrderedDict[int, None] = OrderedDict()
        self.seq = 0
        self.running: deque[int] = deque()
        self.served = 0

    def serve(self, wanted: Sequence[int], until: int) -> tuple[int, KvEvents]:
        """Blocks found in the cache, and what changed in it."""
        hit = next((n for n, block in enumerate(wanted) if block not in self.blocks), len(wanted))
        new = [block for block in wanted if block not in self.blocks]
        for block in reversed(wanted):  # leaves are older than their parents
            self.blocks[block] = None
            self.blocks.move_to_end(block)
        removed = []
        while len(self.blocks) > self.capacity:
            removed.append(self.blocks.popitem(last=False)[0])
        self.seq += 1
        self.running.append(until)
        self.served += 1
        return hit, events(self.name, self.seq, [block for block in new if block in self.blocks], removed)


def simulate(
    replicas: int, prompts: Iterable[NDArray[np.int32]], capacity: int = 400, **options: Any
) -> tuple[float, list[int], int]:
    """Hit rate over all blocks, requests by replica, and the largest difference in load that was seen."""
    clock = Clock()
    router = Router(clock=clock, **options)
    found = {f"r{n}": SimulatedReplica(f"r{n}", capacity) for n in range(replicas)}
    for name in found:
        router.seen(beat(name))
        router.apply(events(name, 0, cleared=True))
    hits = total = worst = 0
    late: deque[KvEvents] = deque()
    for step, ids in enumerate(prompts):
        clock.now += 0.01
        for replica in found.values():
            while replica.running and replica.running[0] <= step:
                replica.running.popleft()
        if step % 100 == 0:
            for replica in found.values():
                router.seen(beat(replica.name, running=len(replica.running)))
        route = chosen(router, ids)
        hit, change = found[route.replica_id].serve(hashes(ids), step + 12 * replicas)
        hits, total = hits + hit, total + len(ids) // BLOCK
        late.append(change)
        if len(late) > 8:
            router.apply(late.popleft())
        loads = [len(replica.running) for replica in found.values()]
        worst = max(worst, max(loads) - min(loads))
    return hits / total, [replica.served for replica in found.values()], worst


def shared_prefixes(weights: Sequence[float], count: int = 1500) -> list[NDArray[np.int32]]:
    """Prompts of a 64-token prefix, drawn by weight, and 16 tokens of their own."""
    draw = random.Random(1)
    prefixes = [[draw.randrange(1000) for _ in range(64)] for _ in weights]
    return [
        prompt(*draw.choices(prefixes, weights)[0], *(draw.randrange(1000) for _ in range(16))) for _ in range(count)
    ]


def test_two_replicas_hit_as_often_as_one() -> None:
    prompts = shared_prefixes([1.0] * 20)
    alone, _, _ = simulate(1, prompts, capacity=800)
    together, served, _ = simulate(2, prompts, capacity=400)
    blind, _, _ = simulate(2, prompts, capacity=400, prefix_share=1.0)
    assert alone > 0.7
    assert together > alone - 0.04
    assert together > blind + 0.05
    assert min(served) > 0.3 * sum(served)


def test_a_skewed_load_is_balanced() -> None:
    prompts = shared_prefixes([80.0, *[1.0] * 20])
    rate, served, worst = simulate(2, prompts)
    assert rate > 0.65
    assert min(served) > 0.35 * sum(served)
    assert worst <= 16

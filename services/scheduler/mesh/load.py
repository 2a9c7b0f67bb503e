"""A replica's load and limits, as told with each heartbeat."""

from dataclasses import asdict
from typing import Any

from radixmesh.services.scheduler.replica import ReplicaState


def load_attributes(state: ReplicaState) -> dict[str, Any]:
    """Plain values: sizes, what is used of them now, and totals since the claim. Pages are of all groups together."""
    return {
        "group_id": state.sizes.group_id,
        "max_model_len": state.max_len,
        "vocab_size": state.sizes.vocab_size,
        "page_size": state.kv.page_size,
        "num_pages": state.kv.total,
        "free_pages": state.kv.free,
        "cached_pages": state.kv.cached,
        "kv_groups": [
            {
                "kind": group.kind.value,
                "num_pages": pool.total,
                "free_pages": pool.available,
                "cached_pages": state.kv.tree.cached(number),
            }
            for number, (group, pool) in enumerate(zip(state.sizes.groups, state.kv.pools, strict=True))
        ],
        "evicted_pages": state.kv.evicted,
        "max_slots": state.slots.usable,
        "running": state.slots.running,
        "waiting": len(state.queue),
        "waiting_begun": sum(seq.length > seq.prompt_tokens for seq in state.queue),
        "max_queued": state.settings.max_queued_requests,
        **asdict(state.counters),
    }

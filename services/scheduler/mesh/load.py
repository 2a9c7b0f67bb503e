"""A replica's load and limits, as told with each heartbeat."""

from dataclasses import asdict
from typing import Any

from radixmesh.services.scheduler.replica import Replica


def load_attributes(replica: Replica) -> dict[str, Any]:
    """Plain values: sizes, what is used of them now, and totals since the claim. Pages are of all groups together."""
    return {
        "group_id": replica.sizes.group_id,
        "max_model_len": replica.max_len,
        "vocab_size": replica.sizes.vocab_size,
        "page_size": replica.kv.page_size,
        "num_pages": replica.kv.total,
        "free_pages": replica.kv.free,
        "cached_pages": replica.kv.cached,
        "kv_groups": [
            {
                "kind": group.kind.value,
                "num_pages": pool.total,
                "free_pages": pool.available,
                "cached_pages": replica.kv.tree.cached(number),
            }
            for number, (group, pool) in enumerate(zip(replica.sizes.groups, replica.kv.pools, strict=True))
        ],
        "evicted_pages": replica.kv.evicted,
        "max_slots": replica.slots.usable,
        "running": replica.slots.running,
        "waiting": len(replica.queue),
        "preparing": replica.queue.preparing,
        "waiting_begun": sum(seq.length > seq.prompt_tokens for seq in replica.queue),
        "max_queued": replica.settings.max_queued_requests,
        "prepared": replica.preparations.prepared,
        "prepare_failures": replica.preparations.failures,
        "prepare_seconds": round(replica.preparations.seconds, 3),
        **asdict(replica.counters),
    }

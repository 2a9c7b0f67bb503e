"""What a scheduler can be told."""

from typing import Literal

from pydantic import Field

from radixmesh.shared.config import ServiceSettings

PolicyName = Literal["fcfs", "lpm", "dfs-weight", "priority"]
EvictionName = Literal["lru", "lfu"]


class SchedulerSettings(ServiceSettings):
    """Settings of one replica's scheduler."""

    replica: str = Field(
        "", max_length=128, description="Name of the replica; a worker group with the same --replica is its own."
    )
    policy: PolicyName = Field("fcfs", description="Which waiting sequence goes first.")
    preemption_threshold: int = Field(
        10, ge=1, description="By how much a waiting priority must be higher for a running one to give way to it."
    )
    max_running_requests: int = Field(
        0, ge=0, description="Sequences that may run at once; 0: as many as the workers have slots."
    )
    max_queued_requests: int = Field(1024, ge=1, description="Sequences that may wait while no slot is free.")
    queue_timeout: float = Field(
        0.0, ge=0, description="Seconds that a request may wait before it begins; 0: until its own deadline."
    )
    prefill_chunk: int = Field(
        512, ge=1, description="Prompt tokens computed in a step beside decodes, at most (decodes counted in)."
    )
    max_prefill_tokens: int = Field(
        2048, ge=1, description="Prompt tokens computed in a step when nothing decodes, at most."
    )
    pipeline_depth: int = Field(
        2, ge=1, le=8, description="Plans in flight; 1: no planning ahead of the worker's report."
    )
    max_multi_step: int = Field(
        8, ge=1, le=64, description="Decode steps granted by one plan when nothing waits, at most."
    )
    multi_step_ms: float = Field(
        60.0, ge=0, description="Milliseconds such a plan may take: who comes meanwhile waits so long. 0: any time."
    )
    eviction: EvictionName = Field("lru", description="Which cached pages go first when memory is short.")
    prefix_cache: bool = Field(True, description="Keep computed prompts for requests that start the same way.")
    decode_headroom: int = Field(
        32, ge=0, description="Tokens of memory kept free per running sequence when another one is admitted."
    )
    starvation_seconds: float = Field(
        10.0, gt=0, description="Seconds of waiting after which a sequence goes before all younger ones."
    )
    warm_min_tokens: int = Field(
        64, ge=1, description="Uncached prefix shared with a prompt now being computed that is worth waiting for."
    )

    def instance_name(self, service: str) -> str:
        """The replica's name is the instance's."""
        return self.instance or self.replica or super().instance_name(service)

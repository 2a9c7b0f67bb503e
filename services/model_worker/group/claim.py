"""Who a worker group works for, and what that one is told of its memory."""

from radixmesh.services.model_worker.forward.kv_cache import KVCache
from radixmesh.shared.messages import Claim, KvGroup, KvKind, Presence, Refused
from radixmesh.shared.presence.view import PresenceView


class ClaimState:
    """The group's one claim: the first comes, the first is served, until its scheduler is gone or claims anew."""

    def __init__(self, pinned_replica: str = "") -> None:
        self._pinned = pinned_replica
        self.claimed_by = ""
        """Replica id of the claim; empty while the group is free."""
        self.epoch = -1

    def consider(self, claim: Claim, members: PresenceView) -> Refused | None:
        """Takes the claim, or says why not."""
        if self._pinned and claim.replica_id != self._pinned:
            return Refused(reason=f"this group is pinned to replica {self._pinned}")
        if claim.epoch <= self.epoch:
            return Refused(reason=f"epoch {claim.epoch} is not newer than {self.epoch}", epoch=self.epoch)
        if self.claimed_by and self.claimed_by != claim.replica_id and members.get(self.claimed_by) is not None:
            return Refused(reason=f"this group works for {self.claimed_by}")
        self.claimed_by, self.epoch = claim.replica_id, claim.epoch
        return None

    def release(self, gone: Presence) -> bool:
        """Frees the group if `gone` was its scheduler in the claim's epoch or before."""
        if gone.instance != self.claimed_by or gone.epoch > self.epoch:
            return False
        self.claimed_by = ""
        return True


def kv_groups(kv: KVCache) -> list[KvGroup]:
    """The pools, as a scheduler knows them."""
    return [
        KvGroup(
            kind=KvKind.FULL if pool.spec.window is None else KvKind.WINDOW,
            page_size=pool.spec.page_size,
            num_pages=pool.num_pages,
            window=pool.spec.window or 0,
        )
        for pool in kv.pools
    ]
